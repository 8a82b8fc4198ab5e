package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tenantflow/internal/analytics"
	"tenantflow/internal/analytics/analyticstest"
	"tenantflow/internal/engine/enginetest"
)

// billingStores are those of analyses, with a Kafka that has read nothing because there is nothing.
func billingStores(t *testing.T) (environ []string, world *analyticstest.World, month analytics.Month) {
	t.Helper()
	environ, world = businessStores(t)
	broker := enginetest.SharedKafka(t)
	prefix := enginetest.NewTopic(t, 1) + "."
	for _, topic := range []string{"usage.events", "subscription.events", "company.events", "billing.exports"} {
		enginetest.CreateTopic(t, broker, prefix+topic, 2)
	}
	return append(environ, "TENANTFLOW_KAFKA_BROKERS="+broker.Addr(), "TENANTFLOW_TOPIC_PREFIX="+prefix), world, analytics.MonthOf(time.Now()) - 2
}

func TestBilling_ExportsAreWritten(t *testing.T) {
	t.Parallel()
	environ, world, month := billingStores(t)
	world.Plant(t, analyticstest.Use{Company: "acme", User: "u-1", Tier: "pro", From: month.Start(), Calls: 3, Points: 2})
	period := month.String()
	export := []string{"billing", "export", "--company", "acme", "--period", period}
	draft := looked(t, environ, append(export, "--draft")...)
	if !strings.Contains(draft, `"state":"draft"`) || !strings.Contains(draft, `"user_id":"u-1","subscription_tier":"pro","service_name":"svc","calls":3,"data_points":6,"attributed_revenue":0.750000`) {
		t.Errorf("a draft: %s", draft)
	}
	closed := looked(t, environ, export...)
	if !strings.Contains(closed, `"state":"closed"`) || looked(t, environ, export...) != closed {
		t.Errorf("closed: %s", closed)
	}
	file := filepath.Join(t.TempDir(), "acme.csv")
	looked(t, environ, append(export, "--format", "csv", "--out", file)...)
	if text, err := os.ReadFile(file); err != nil || !strings.Contains(string(text), "usage,acme,"+period+",,,,,,u-1,pro,svc,3,6,,0.750000,,,,,,\r\n") {
		t.Errorf("%v: %s", err, text)
	}

	dir := filepath.Join(t.TempDir(), "all")
	all := []string{"billing", "export", "--all", "--period", period, "--out", dir}
	out := looked(t, environ, all...)
	for _, line := range []string{"CURRENCY  COMPANIES  CHARGED  RECEIVED  CALLS  DATA POINTS  ATTRIBUTED  CORRECTED CALLS  CORRECTED ATTRIBUTED", "the files are in " + dir} {
		if !strings.Contains(out, line) {
			t.Errorf("it lacks %q:\n%s", line, out)
		}
	}
	text, err := os.ReadFile(filepath.Join(dir, "manifest.json"))
	var manifest struct {
		Companies int
		Exports   []struct{ File string }
	}
	if err != nil || json.Unmarshal(text, &manifest) != nil {
		t.Fatalf("%v: %s", err, text)
	}
	for _, e := range manifest.Exports {
		if _, err := os.Stat(filepath.Join(dir, e.File)); err != nil {
			t.Error(err)
		}
	}
	if got := compacted(t, looked(t, environ, append(all, "-o", "json")...)); !strings.Contains(got, `"closed":0`) {
		t.Errorf("again: %s", got)
	}
}

func TestBilling_SaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	environ, _, month := billingStores(t)
	period := month.String()
	for says, args := range map[string][]string{
		"--period is missing": nil, "--company is missing": {"--period", period}, "a company id has": {"--period", period, "--company", "a b"}, "is no month": {"--period", "2026-13", "--company", "a"},
		"there is no such format": {"--period", period, "--company", "acme", "--format", "xml"}, "exclude each other": {"--period", period, "--company", "acme", "--all"},
		"--draft closes none": {"--period", period, "--all", "--draft"}, "--all needs --out": {"--period", period, "--all"},
	} {
		out, errOut, code := tenantflow(t, environ, append([]string{"billing", "export"}, args...)...)
		if code != exitInvalid || !strings.Contains(errOut, says) || out != "" {
			t.Errorf("%v: exit code %d and %q in %q", args, code, says, errOut)
		}
	}
	present := analytics.MonthOf(time.Now()).String()
	for says, args := range map[string][]string{
		"company stranger is not known": {"--period", period, "--company", "stranger"}, "can't be closed yet: its grace period lasts until": {"--period", present, "--company", "acme"},
		"can't be closed yet: its grace": {"--period", present, "--all", "--out", t.TempDir()},
	} {
		out, errOut, code := tenantflow(t, environ, append([]string{"billing", "export"}, args...)...)
		if code != exitFailed || !strings.Contains(errOut, says) || out != "" {
			t.Errorf("%v: exit code %d and %q in %q", args, code, says, errOut)
		}
	}
}
