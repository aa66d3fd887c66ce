<?php
// A client of esl_apps in PHP: place a call, follow it, verify its webhook, read its record, fetch its recording.
// Needs PHP 8.1 or later and no extensions. README.rst lists the environment variables.

declare(strict_types=1);

const CDRS = 'enigma:notifications:cdr';
// Seconds in which a call is placed or given up. The key of a request whose node has died is free again after 60.
const PATIENCE = 90;

/** Open a request; the answer's body is read from the stream. */
function ask(string $method, string $path, ?array $body = null, array $headers = [], float $timeout = 30)
{
    $headers[] = 'Authorization: Bearer ' . getenv('API_TOKEN');
    $options = ['method' => $method, 'timeout' => $timeout, 'ignore_errors' => true, 'protocol_version' => 1.1];
    if ($body !== null) {
        $headers[] = 'Content-Type: application/json';
        $options['content'] = json_encode($body, JSON_THROW_ON_ERROR);
    }
    $headers[] = 'Connection: close';
    $options['header'] = $headers;
    $stream = @fopen(getenv('API_URL') . $path, 'rb', false, stream_context_create(['http' => $options]));
    if ($stream === false) {
        throw new RuntimeException('no answer');
    }
    return $stream;
}

/** The status and the headers (names in lower case) of an answer. */
function head($stream): array
{
    $lines = stream_get_meta_data($stream)['wrapper_data'];
    $headers = [];
    foreach (array_slice($lines, 1) as $line) {
        [$name, $value] = array_pad(explode(': ', $line, 2), 2, '');
        $headers[strtolower($name)] = $value;
    }
    return [(int) explode(' ', $lines[0])[1], $headers];
}

// Place a call ---------------------------------------------------------------------------------------------

/** Place a call, exactly one, and return its reference. The key makes it safe to ask again. */
function place(array $order): string
{
    $key = bin2hex(random_bytes(16));
    [$deadline, $tries] = [time() + PATIENCE, 0];
    while ($tries < 5 && time() < $deadline) {
        try {
            $answer = ask('POST', '/click2dial/calls', $order, ["Idempotency-Key: $key"]);
        } catch (RuntimeException) {
            // No answer: the call may or may not have been placed. The same key finds out.
            sleep(2 ** $tries++);
            continue;
        }
        [$status, $headers] = head($answer);
        $body = stream_get_contents($answer);
        $said = json_decode($body, true); // null: it was cut off
        if ($status === 202 && isset($said['call_ref'])) {
            return $said['call_ref'];
        }
        // Whether the first request with this key, whose answer was lost, hasn't placed its call yet.
        $runs = in_array('in_progress', array_column($said['errors'] ?? [], 'code'), true);
        if (!in_array($status, [202, 429, 503], true) && !$runs) {
            // The body says which field is wrong, and what was expected.
            throw new DomainException("refused: $body");
        }
        $tries += $runs ? 0 : 1;
        sleep((int) ($headers['retry-after'] ?? 1));
    }
    throw new DomainException('no answer; the call may have been placed');
}

// Follow it ------------------------------------------------------------------------------------------------

/** Yield "connected", then each event once and in order, over as many connections as it takes. */
function events(array $filters): Generator
{
    $last = '';
    while (true) {
        try {
            // Heartbeats come every 15 s: after 40 s of silence the connection is dead.
            $headers = $last === '' ? [] : ["Last-Event-ID: $last"];
            $answer = ask('GET', '/click2dial/events?' . http_build_query($filters), null, $headers, 40);
            $status = head($answer)[0];
            if (in_array($status, [429, 503], true)) {
                throw new RuntimeException('not now'); // the node stops, or Redis is away
            }
            if ($status !== 200) {
                throw new DomainException('refused: ' . stream_get_contents($answer));
            }
            yield 'connected' => [];
            $fields = [];
            while (($line = fgets($answer)) !== false) {
                $line = rtrim($line, "\n");
                if ($line !== '') {
                    [$name, $value] = array_pad(explode(': ', $line, 2), 2, '');
                    $fields[$name] = $value;
                    continue;
                }
                $last = $fields['id'] ?? $last;
                if (isset($fields['data'])) {
                    yield $fields['event'] => json_decode($fields['data'], true, flags: JSON_THROW_ON_ERROR);
                }
                $fields = [];
            }
        } catch (RuntimeException) {
            // Connect again, below.
        }
        sleep(1);
    }
}

// Receive webhooks -----------------------------------------------------------------------------------------

/** Whether a webhook is ours and fresh (https://www.standardwebhooks.com). $body: the bytes as they came. */
function is_genuine(array $headers, string $body, string $secret): bool
{
    $id = $headers['webhook-id'] ?? '';
    $timestamp = $headers['webhook-timestamp'] ?? '';
    if (!ctype_digit($timestamp) || abs(time() - (int) $timestamp) > 300) {
        return false;
    }
    $key = base64_decode(substr($secret, strlen('whsec_')));
    $expected = 'v1,' . base64_encode(hash_hmac('sha256', "$id.$timestamp.$body", $key, true));
    // One for each secret, while the secret is being changed.
    foreach (explode(' ', $headers['webhook-signature'] ?? '') as $given) {
        if (hash_equals($expected, $given)) {
            return true;
        }
    }
    return false;
}

/** Take webhooks until a call's, and return it. A web server would call is_genuine() from a script of its own. */
function receive($server, string $secret, string $ref): array
{
    while (true) {
        $client = stream_socket_accept($server, 30);
        if ($client === false) {
            throw new DomainException('no webhook');
        }
        stream_set_timeout($client, 5);
        fgets($client);
        $headers = [];
        while (($line = rtrim((string) fgets($client), "\r\n")) !== '') {
            [$name, $value] = array_pad(explode(':', $line, 2), 2, '');
            $headers[strtolower($name)] = trim($value);
        }
        $body = (string) stream_get_contents($client, (int) ($headers['content-length'] ?? 0));
        $genuine = is_genuine($headers, $body, $secret);
        $status = $genuine ? '204 No Content' : '401 Unauthorized';
        @fwrite($client, "HTTP/1.1 $status\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        fclose($client);
        // It may come again, under the same webhook-id: store the id with what you make of it.
        $message = $genuine ? json_decode($body, true, flags: JSON_THROW_ON_ERROR) : null;
        if ($message !== null && ($message['payload']['call_ref'] ?? null) === $ref) {
            return $message;
        }
    }
}

// Read records from Redis ----------------------------------------------------------------------------------

/** As little of a Redis client as this needs. A real program uses phpredis or Predis. */
final class TinyRedis
{
    private $stream;

    public function __construct(string $url)
    {
        $parts = parse_url($url);
        $this->stream = stream_socket_client("tcp://{$parts['host']}:" . ($parts['port'] ?? 6379));
        stream_set_timeout($this->stream, 60);
        if (isset($parts['pass'])) {
            $this->ask('AUTH', rawurldecode($parts['pass']));
        }
        $this->ask('SELECT', trim($parts['path'] ?? '', '/') ?: '0');
    }

    public function ask(string ...$words): mixed
    {
        $packed = array_map(fn (string $word): string => '$' . strlen($word) . "\r\n$word\r\n", $words);
        fwrite($this->stream, '*' . count($words) . "\r\n" . implode('', $packed));
        return $this->answer();
    }

    private function answer(): mixed
    {
        $line = rtrim((string) fgets($this->stream), "\r\n");
        [$kind, $rest] = [$line[0] ?? '', substr($line, 1)];
        return match (true) {
            $kind === '+' => $rest,
            $kind === ':' => (int) $rest,
            $kind === '$' && $rest !== '-1' => substr((string) stream_get_contents($this->stream, (int) $rest + 2), 0, -2),
            $kind === '*' && $rest !== '-1' => array_map(fn () => $this->answer(), array_fill(0, (int) $rest, null)),
            $rest === '-1' => null,
            default => throw new RuntimeException($rest ?: 'Redis closed the connection'),
        };
    }
}

/** Pop records until a call's. A popped record is gone: a real program keeps each. */
function from_list(TinyRedis $redis, string $ref): array
{
    while ($popped = $redis->ask('BRPOP', CDRS, '30')) {
        $record = json_decode($popped[1], true, flags: JSON_THROW_ON_ERROR)['payload'];
        // Other notifications may be between them, as the closing entries of sessions.
        if (($record['call_ref'] ?? null) === $ref) {
            return $record;
        }
    }
    throw new DomainException('no record');
}

/** Read records of a stream in a consumer group until a call's. */
function from_stream(TinyRedis $redis, string $ref): array
{
    [$stream, $group] = [CDRS . ':stream', 'billing'];
    try {
        $redis->ask('XGROUP', 'CREATE', $stream, $group, '0', 'MKSTREAM');
    } catch (RuntimeException $error) {
        if (!str_starts_with($error->getMessage(), 'BUSYGROUP')) {
            throw $error;
        }
    }
    $read = ['XREADGROUP', 'GROUP', $group, 'worker-1', 'COUNT', '10', 'BLOCK', '30000', 'STREAMS', $stream, '>'];
    while ($found = $redis->ask(...$read)) {
        foreach ($found[0][1] as [$id, $fields]) {
            $json = $fields[array_search('json', $fields, true) + 1];
            $record = json_decode($json, true, flags: JSON_THROW_ON_ERROR)['payload'];
            // Acknowledge it once it is stored. With "0" for ">", what is not acknowledged comes again.
            $redis->ask('XACK', $stream, $group, $id);
            if (($record['call_ref'] ?? null) === $ref) {
                return $record;
            }
        }
    }
    throw new DomainException('no record');
}

// All of it ------------------------------------------------------------------------------------------------

$server = stream_socket_server('tcp://' . getenv('WEBHOOK_LISTEN'));
$contact_ref = 'example-' . bin2hex(random_bytes(8));
$order = ['agent' => getenv('AGENT'), 'callee' => getenv('CALLEE'), 'outbound_id' => getenv('OUTBOUND_ID')];
$ref = null;
foreach (events(['contact_ref' => $contact_ref]) as $event => $data) {
    if ($event === 'connected' && $ref === null) {
        // Once the events are connected, so that nothing is missed.
        $ref = place([...$order, 'contact_ref' => $contact_ref]);
        echo "placed $ref\n";
    } elseif ($event === 'call') {
        echo "event {$data['state']}\n";
    } elseif ($event === 'record') {
        echo "ended {$data['end_reason']}\n";
        break;
    }
}

$message = receive($server, getenv('WEBHOOK_SECRET'), $ref);
echo "webhook {$message['type']} {$message['payload']['end_reason']}\n";

$redis = new TinyRedis(getenv('REDIS_URL'));
$record = getenv('RECORDS') === 'stream' ? from_stream($redis, $ref) : from_list($redis, $ref);
echo "record {$record['end_reason']} seq {$record['seq']}\n";

if ($record['recording_url'] !== null) {
    $answer = ask('GET', "/click2dial/recordings/{$record['recording_url']}");
    if (head($answer)[0] !== 200) {
        throw new DomainException(stream_get_contents($answer));
    }
    $audio = stream_get_contents($answer);
    file_put_contents(getenv('RECORDING'), $audio);
    echo 'recording ' . strlen($audio) . " bytes\n";
}
