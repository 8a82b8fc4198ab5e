package deploy

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"tenantflow/internal/config"
	running "tenantflow/internal/service"
)

// units are the files in systemd, each with the name it is checked by: that of the template is an instance.
var units = map[string]string{"tenantflow.service": "tenantflow.service", "tenantflow@.service": "tenantflow@usage.service", "tenantflow-migrate.service": "tenantflow-migrate.service"}

// lines returns the values of a unit by key, in their order.
func lines(text string) map[string][]string {
	values := map[string][]string{}
	for line := range strings.Lines(text) {
		if key, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok && !strings.HasPrefix(key, "#") {
			values[key] = append(values[key], value)
		}
	}
	return values
}

// analyze runs systemd-analyze over the units of a folder.
func analyze(t *testing.T, folder string, args ...string) (output string, ok bool) {
	t.Helper()
	program, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Fatalf("the units can't be checked: %v (make test installs Debian's package systemd)", err)
	}
	command := exec.CommandContext(t.Context(), program, args...)
	command.Dir = folder
	text, err := command.CombinedOutput()
	return string(text), err == nil
}

// copyUnits copies the units to a folder with a program where theirs is looked for, and a change to one of them.
func copyUnits(t *testing.T, old, instead string) string {
	t.Helper()
	folder := t.TempDir()
	program := filepath.Join(folder, "tenantflow")
	if err := os.WriteFile(program, []byte("#!/bin/sh\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	for file, name := range units {
		text := strings.ReplaceAll(readFile(t, filepath.Join("systemd", file)), "/usr/local/bin/tenantflow", program)
		if file == "tenantflow.service" {
			text = strings.Replace(text, old, instead, 1)
		}
		if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return folder
}

// faults reports everything that systemd finds wrong with the units: it warns of what it does not know, and goes on.
func faults(t *testing.T, folder string) string {
	t.Helper()
	args := []string{"verify", "--man=no", "--generators=no"}
	for _, name := range units {
		args = append(args, "./"+name)
	}
	output, ok := analyze(t, folder, args...)
	if !ok {
		output += "\nit failed"
	}
	return strings.TrimSpace(output)
}

func TestSystemd_UnitsAreValid(t *testing.T) {
	t.Parallel()
	if wrong := faults(t, copyUnits(t, "", "")); wrong != "" {
		t.Error(wrong)
	}
	for old, instead := range map[string]string{
		"NoNewPrivileges=": "NoNewPrivilege=", "TimeoutStopSec=35s": "TimeoutStopSec=soon", "@system-service": "@sytem-service", "Type=exec": "Type=execute",
	} {
		if faults(t, copyUnits(t, old, instead)) == "" {
			t.Errorf("%s in place of %s is not found", instead, old)
		}
	}
}

// systemd counts from 0 to 10, of which 9.6 is a service without any protection.
func TestSystemd_ServicesAreHardened(t *testing.T) {
	t.Parallel()
	folder := copyUnits(t, "", "")
	for _, name := range units {
		if output, ok := analyze(t, folder, "security", "--offline=true", "--threshold=15", "./"+name); !ok {
			t.Errorf("%s:\n%s", name, output)
		}
	}
}

// hardening is everything behind the comment that begins it, without installing.
func hardening(t *testing.T, file string) string {
	t.Helper()
	_, rest, found := strings.Cut(readFile(t, filepath.Join("systemd", file)), "# The rest takes away what it does not need.")
	if !found {
		t.Fatalf("%s has no hardening", file)
	}
	rest, _, _ = strings.Cut(rest, "\n[Install]")
	return strings.TrimSpace(rest)
}

// Names, values and files, as `tenantflow config check` would look at them, and time to stop.
func TestSystemd_SettingsAreAValidConfiguration(t *testing.T) {
	t.Parallel()
	for file := range units {
		unit := lines(readFile(t, filepath.Join("systemd", file)))
		folder := t.TempDir()
		for _, credential := range unit["LoadCredential"] {
			name, source, _ := strings.Cut(credential, ":")
			if filepath.Base(source) != name {
				t.Errorf("%s: %s", file, credential)
			}
			if err := os.WriteFile(filepath.Join(folder, name), []byte(secrets[name]), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		// What /etc/tenantflow/tenantflow.env has at least.
		environ := []string{"TENANTFLOW_KAFKA_BROKERS=127.0.0.1:9092"}
		for _, setting := range unit["Environment"] {
			environ = append(environ, strings.ReplaceAll(setting, "%d", folder))
		}
		stores := running.Stores(running.Parts())
		if file == "tenantflow-migrate.service" {
			stores = []config.Store{config.Kafka, config.ClickHouse, config.Postgres}
		}
		cfg, err := config.Load(environ, stores...)
		if err != nil {
			t.Errorf("%s: %v", file, err)
			continue
		}
		if len(unit["Environment"]) != len(unit["LoadCredential"]) {
			t.Errorf("%s: %v are loaded, and %v are set", file, unit["LoadCredential"], unit["Environment"])
		}
		if file == "tenantflow-migrate.service" {
			continue
		}
		if grace, err := time.ParseDuration(unit["TimeoutStopSec"][0]); err != nil || grace < cfg.ShutdownTimeout+5*time.Second {
			t.Errorf("%s: a stop may take %s, and is cut off after %s (%v)", file, cfg.ShutdownTimeout, grace, err)
		}
	}
}

func TestSystemd_UnitsDifferInWhatTheyRunOnly(t *testing.T) {
	t.Parallel()
	for file := range units {
		if got, want := hardening(t, file), hardening(t, "tenantflow.service"); got != want {
			t.Errorf("%s is hardened by\n%s\nwant\n%s", file, got, want)
		}
	}
	one, each := lines(readFile(t, "systemd/tenantflow.service")), lines(readFile(t, "systemd/tenantflow@.service"))
	for key := range one {
		if !slices.Contains([]string{"Description", "ExecStart", "EnvironmentFile"}, key) && !slices.Equal(one[key], each[key]) {
			t.Errorf("%s: the service has %q, its template %q", key, one[key], each[key])
		}
	}
}
