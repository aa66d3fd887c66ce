"""Pages in a real Chromium. Without one, or without Playwright, these tests are skipped."""
