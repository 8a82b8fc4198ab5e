// Command probe asks a URL once and exits with 0 if the answer is 200, else with 1 and the answer on standard error. It
// is the health check of the container image, which has no shell and no other program to ask with.
//
//	probe http://127.0.0.1:8080/livez
//	probe https://127.0.0.1:8080/livez    # whatever host the certificate names: it is this machine
package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"
)

const (
	// timeout is shorter than that of the check, so that the probe reports the reason itself.
	timeout = 4 * time.Second
	// maxShown is how much of a refusal is worth keeping in the container's state: /readyz names the part in less.
	maxShown = 4 << 10
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: probe URL")
		os.Exit(2)
	}
	if err := ask(context.Background(), os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "probe:", err)
		os.Exit(1)
	}
}

// ask gets a URL. The error says what came instead of status 200.
func ask(ctx context.Context, url string) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	// Its own transport: a proxy from the environment must not answer for the service.
	transport := &http.Transport{DisableKeepAlives: true}
	if ip := net.ParseIP(request.URL.Hostname()); ip != nil && ip.IsLoopback() {
		transport.TLSClientConfig = &tls.Config{InsecureSkipVerify: true} // #nosec G402 -- nothing leaves this machine
	}
	client := &http.Client{Transport: transport}
	answer, err := client.Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode == http.StatusOK {
		return nil
	}
	body, err := io.ReadAll(io.LimitReader(answer.Body, maxShown))
	if err != nil {
		return fmt.Errorf("%s: reading the answer: %w", answer.Status, err)
	}
	return fmt.Errorf("%s: %s", answer.Status, strings.TrimSpace(string(body)))
}
