// eslgo's outbound server and connection, used as in its README: eslgo-app PORT.
package main

import (
	"context"
	"log"
	"os"

	"github.com/percipia/eslgo"
	"github.com/percipia/eslgo/command"
	"github.com/percipia/eslgo/command/call"
)

const welcome = "/usr/share/freeswitch/sounds/en/us/callie/ivr/8000/ivr-welcome.wav"

var events = []string{
	"CHANNEL_EXECUTE_COMPLETE", "DTMF", "CHANNEL_ANSWER", "CHANNEL_BRIDGE", "CHANNEL_UNBRIDGE",
	"CHANNEL_HANGUP_COMPLETE",
}

func send(ctx context.Context, conn *eslgo.Conn, what command.Command) {
	if _, err := conn.SendCommand(ctx, what); err != nil {
		log.Println(err)
	}
}

func handle(ctx context.Context, conn *eslgo.Conn, response *eslgo.RawResponse) {
	uuid := response.ChannelUUID()
	complete, ended, digits := make(chan string, 16), make(chan bool, 1), make(chan string, 4)
	// Each event is given to a goroutine of its own.
	conn.RegisterEventListener(uuid, func(event *eslgo.Event) {
		switch event.GetName() {
		case "CHANNEL_EXECUTE_COMPLETE":
			complete <- event.GetHeader("Application")
		case "DTMF":
			digits <- event.GetHeader("DTMF-Digit")
		case "CHANNEL_HANGUP_COMPLETE":
			ended <- true
		}
	})
	execute := func(app, arg string) { send(ctx, conn, &call.Execute{AppName: app, AppArgs: arg}) }
	send(ctx, conn, command.Linger{Enabled: true})
	send(ctx, conn, command.Event{Format: "plain", Listen: events})
	send(ctx, conn, command.Filter{EventHeader: "Unique-ID", FilterValue: uuid})
	execute("answer", "")
	<-complete
	execute("playback", welcome)
	<-complete
	execute("playback", welcome)
	for i := 0; i < 4; i++ {
		<-digits
	}
	send(ctx, conn, command.API{Command: "uuid_break", Arguments: uuid + " all"})
	<-complete
	execute("bridge", "user/1000")
	<-complete
	send(ctx, conn, call.Hangup{Cause: "NORMAL_CLEARING"})
	<-ended
	// Its server says exit and closes the connection.
}

func main() {
	options := eslgo.DefaultOutboundOptions
	options.Logger = eslgo.NilLogger{}
	// It recommends 25 ms before the end. The generator needs none, and would only have more calls up.
	options.ConnectionDelay = 0
	log.Fatalln(options.ListenAndServe("127.0.0.1:"+os.Args[1], handle))
}
