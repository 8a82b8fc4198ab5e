package main

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"

	"tenantflow/internal/telemetry"
)

// A progress reports how far a long-running command is: on a terminal one line that is written over, otherwise a JSON
// line now and then. It belongs to one goroutine.
type progress struct {
	w        io.Writer
	command  string
	terminal bool
	every    time.Duration
	start    time.Time
	last     time.Time
	width    int // of the line on the terminal
}

// newProgress makes the progress of the named command, written to w (usually its standard error).
func newProgress(w io.Writer, command string) *progress {
	p := &progress{w: w, command: command, terminal: telemetry.IsTerminal(w), every: 5 * time.Second, start: time.Now()}
	if p.terminal {
		p.every = 200 * time.Millisecond
	}
	return p
}

// update prints the numbers as they are now, unless that was done a moment ago: it may be called for every event.
func (p *progress) update(numbers ...slog.Attr) {
	if now := time.Now(); now.Sub(p.last) >= p.every {
		p.last = now
		p.write(false, numbers)
	}
}

// done prints the last numbers and ends the line.
func (p *progress) done(numbers ...slog.Attr) { p.write(true, numbers) }

func (p *progress) write(done bool, numbers []slog.Attr) {
	seconds := time.Since(p.start).Seconds()
	if !p.terminal {
		line := map[string]any{"command": p.command, "done": done, "seconds": float64(int(seconds*1000)) / 1000}
		for _, n := range numbers {
			line[n.Key] = n.Value.Any()
		}
		// Progress that can't be printed is no reason to stop the work.
		if b, err := json.Marshal(line); err == nil {
			_, _ = p.w.Write(append(b, '\n'))
		}
		return
	}
	parts := []string{p.command}
	for _, n := range numbers {
		parts = append(parts, n.Key+" "+n.Value.String())
	}
	text := strings.Join(append(parts, fmt.Sprintf("%.1fs", seconds)), "  ")
	pad := max(0, p.width-len(text))
	p.width = len(text)
	end := ""
	if done {
		end = "\n"
	}
	_, _ = fmt.Fprint(p.w, "\r"+text+strings.Repeat(" ", pad)+end)
}
