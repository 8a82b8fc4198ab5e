package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"tenantflow/internal/telemetry"
	"tenantflow/internal/verify"
)

// sinceTime reads a time, or how long ago it was. Empty is the zero time.
func sinceTime(text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if ago, err := time.ParseDuration(text); err == nil && ago > 0 {
		return now.Add(-ago), nil
	}
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return at, invalid("--since %s is neither a time like 2026-03-01T00:00:00Z nor a duration like 2h", text)
	}
	if at.After(now) {
		return at, invalid("--since %s is to come", text)
	}
	return at, nil
}

// approve shows what a repair is about to do, and asks on a terminal.
func (a *app) approve(cmd *cobra.Command, plan verify.Plan, yes bool) (bool, error) {
	w := cmd.ErrOrStderr()
	fmt.Fprintln(w, "\nthe repair is about to:")
	for _, line := range planLines(plan) {
		fmt.Fprintln(w, "  "+line)
	}
	in, isFile := cmd.InOrStdin().(*os.File)
	if yes || !isFile || !telemetry.IsTerminal(in) || !telemetry.IsTerminal(w) {
		return true, nil
	}
	fmt.Fprint(w, "do that? [y/N] ")
	answer, err := bufio.NewReader(in).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return false, fmt.Errorf("read the answer: %w", err)
	}
	return strings.EqualFold(strings.TrimSpace(answer), "y") || strings.EqualFold(strings.TrimSpace(answer), "yes"), nil
}

// planLines says in words what a repair would do, with some of the things it would do it to.
func planLines(plan verify.Plan) []string {
	words := map[verify.Action]string{
		verify.RemoveRows:     "remove %d later copies of events, and correct the totals that they are part of",
		verify.WriteLetters:   "write %d conflict dead letters, for those of them with other data",
		verify.CorrectTotals:  "correct %d totals by their difference",
		verify.PublishConfigs: "publish %d configurations again",
		verify.PublishResults: "publish %d results again, under their own ids",
		verify.CorrectSums:    "make %d counters what their partitions have counted",
		verify.Recount:        "have the running service count days again (%d)",
	}
	var lines []string
	for _, step := range plan {
		lines = append(lines, fmt.Sprintf(words[step.Action], step.Count)+":")
		for _, s := range step.Samples {
			lines = append(lines, "    "+s)
		}
		if more := step.Count - int64(len(step.Samples)); more > 0 {
			lines = append(lines, fmt.Sprintf("    and %d more", more))
		}
	}
	return lines
}
