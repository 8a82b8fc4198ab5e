// Command tenantflow is the service and its tools: it takes usage, subscription and company events from Kafka and
// gives each exactly one effect in every store.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	os.Exit(execute(untilSignal(), os.Args[1:], os.Environ(), os.Stdin, os.Stdout, os.Stderr))
}

// sameSignal is how long after a signal another one is taken for the same: a terminal, a shell and a supervisor may each pass on one.
const sameSignal = time.Second

// untilSignal gives a context that ends with the first SIGTERM or SIGINT, so that commands end in good order. A second one ends the
// process, unless it comes within sameSignal.
func untilSignal() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-signals
		cancel()
		for first := time.Now(); ; {
			<-signals
			if time.Since(first) >= sameSignal {
				break
			}
		}
		fmt.Fprintln(os.Stderr, "tenantflow: second signal, ending at once")
		os.Exit(exitFailed)
	}()
	return ctx
}

// execute runs one command line and gives its exit code. ctx ends when the process is asked to stop.
func execute(ctx context.Context, args, environ []string, in io.Reader, out, errOut io.Writer) int {
	a := &app{environ: environ}
	root := newRootCommand(a)
	root.SetArgs(args)
	root.SetIn(in)
	root.SetOut(out)
	root.SetErr(errOut)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitDone
	}
	fmt.Fprintln(errOut, "tenantflow:", err)
	return a.exitCode(err)
}
