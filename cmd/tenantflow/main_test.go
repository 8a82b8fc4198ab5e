package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/jackc/pgx/v5"

	"tenantflow/internal/config"
	"tenantflow/internal/engine/enginetest"
	"tenantflow/internal/engine/enginetest/postgrestest"
	"tenantflow/internal/service"
)

var update = flag.Bool("update", false, "write the golden files anew")

// asCommand makes the test binary be the command itself, in a process of its own: main for its signals and exit codes.
const asCommand = "RUN_AS_COMMAND"

func TestMain(m *testing.M) {
	switch os.Getenv(asCommand) {
	case "tenantflow":
		main()
	case "stuck": // a service whose only part does not react to being stopped
		cfg, err := config.Load(os.Environ())
		if err != nil {
			panic(err)
		}
		log := slog.New(slog.NewJSONHandler(os.Stderr, nil))
		stuck := service.Part{Name: "stuck", Run: func(context.Context, *service.Running) error { select {} }}
		s, err := service.New(cfg, log, build(), []service.Part{stuck})
		if err != nil {
			panic(err)
		}
		if err := s.Run(untilSignal()); err != nil {
			os.Exit(exitFailed)
		}
		os.Exit(exitDone)
	}
	enginetest.Main(m)
}

// command makes the command line as a process of its own, with nothing but environ in its environment.
func command(t *testing.T, mode string, environ []string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], args...)
	cmd.Env = append([]string{asCommand + "=" + mode}, environ...)
	return cmd
}

// tenantflow runs the command line in a process of its own.
func tenantflow(t *testing.T, environ []string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	cmd := command(t, "tenantflow", environ, args...)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return out.String(), errOut.String(), cmd.ProcessState.ExitCode()
}

func TestTheExitCodeTellsAWrongCommandFromAFailedOne(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		args    []string
		environ []string
		code    int
		says    string // on standard error
	}{
		{"no command prints the help", nil, nil, exitDone, ""},
		{"help", []string{"run", "--help"}, nil, exitDone, ""},
		{"version", []string{"version"}, nil, exitDone, ""},
		{"an unknown command", []string{"verison"}, nil, exitInvalid, `did you mean "version"?`},
		{"an unknown subcommand", []string{"config", "chekc"}, nil, exitInvalid, `did you mean "check"?`},
		{"an unknown flag", []string{"version", "--loud"}, nil, exitInvalid, "unknown flag: --loud"},
		{"an argument too many", []string{"version", "now"}, nil, exitInvalid, "takes no arguments"},
		{"an unknown output", []string{"version", "-o", "xml"}, nil, exitInvalid, "choose table or json"},
		{"an unknown part", []string{"run", "--only", "usage,usge"}, nil, exitInvalid, "choose from usage, quota"},
		{"a replay that could not ask", []string{"replay", "usage.events"}, deadStores(), exitInvalid, "there is no terminal to ask on"},
		{"a replay of quotas", []string{"replay", "usage.events", "--effects", "quota", "--yes"}, deadStores(), exitInvalid, "quota is never an effect"},
		{"a replay of results", []string{"replay", "company.results", "--yes"}, deadStores(), exitInvalid, "no topic of input events"},
		{"a replay from never", []string{"replay", "usage.events", "--from", "yesterday", "--dry-run"}, deadStores(), exitInvalid, "neither a time"},
		{"a task without its id", []string{"task", "show"}, deadStores(), exitInvalid, "the id of one task"},
		{"stores without an address", []string{"run", "--only", "usage"}, nil, exitInvalid, "TENANTFLOW_CLICKHOUSE_DSN: it is not set"},
		{"a valid configuration", []string{"config", "check"}, deadStores(), exitDone, ""},
		{"one that is valid for a part", []string{"config", "check", "--only", "usage"}, deadStores()[:2], exitDone, ""},
		{"no configuration", []string{"config", "check"}, nil, exitInvalid, "4 problems"},
		{"an invalid configuration", []string{"config", "check"}, append(deadStores(), "TENANTFLOW_KAFKA_TLS=x", "TENANTFLOW_X=1"), exitInvalid, "2 problems"},
		{"stores that don't answer", []string{"config", "check", "--connect"}, deadStores(), exitFailed, "not usable: clickhouse, dragonfly, kafka, postgres"},
		{"help for a command", []string{"help", "config", "check"}, nil, exitDone, ""},
		{"help for a command that is not there", []string{"help", "nosuch"}, nil, exitInvalid, `there is no command "nosuch"`},
		{"help for a subcommand that is not there", []string{"help", "config", "nosuch"}, nil, exitInvalid, `there is no command "config nosuch"`},
		{"no users", []string{"generate", "usage", "--users", "0"}, nil, exitInvalid, "--users is 0"},
		{"an invalid configuration where it is used", []string{"config", "print"}, []string{"TENANTFLOW_X=1"}, exitInvalid, "1 problem"},
		{"an address that can't be listened on", []string{"run", "--only", "usage"}, append(deadStores(), "TENANTFLOW_HTTP_ADDR=192.0.2.1:80"), exitFailed, "listening for HTTP"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			stdout, stderr, code := tenantflow(t, c.environ, c.args...)
			if code != c.code || !strings.Contains(stderr, c.says) {
				t.Errorf("exit code %d, want %d; standard error %q should say %q", code, c.code, stderr, c.says)
			}
			if c.code == exitDone && stdout == "" {
				t.Error("it printed nothing")
			}
		})
	}
}

// A client library's own log lines are no message of a command.
func TestQuotaShow_SaysOneLineWhenAStoreIsDown(t *testing.T) {
	t.Parallel()
	_, errOut, code := tenantflow(t, deadStores(), "quota", "show", "u")
	if code != exitFailed || strings.Count(errOut, "\n") != 1 || !strings.HasPrefix(errOut, "tenantflow: ask Dragonfly at 127.0.0.1:1") {
		t.Errorf("exit code %d: %s", code, errOut)
	}
}

// A store that answers, but can't be looked at further, is a message and no panic.
func TestConfigCheck_SaysWhatCannotBeLookedAt(t *testing.T) {
	t.Parallel()
	dsn := postgrestest.New(t)
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	if _, err := conn.Exec(t.Context(), "ALTER TABLE goose_db_version RENAME COLUMN version_id TO gone"); err != nil {
		t.Fatal(err)
	}
	environ := append(deadStores(), "TENANTFLOW_POSTGRES_DSN="+dsn)
	out, errOut, code := tenantflow(t, environ, "config", "check", "--connect", "--only", "api")
	if code != exitFailed || !strings.Contains(out, "postgres: not usable: ") || !strings.Contains(errOut, "not usable: dragonfly, postgres") || strings.Contains(errOut, "panic") {
		t.Errorf("exit code %d: %s%s", code, out, errOut)
	}
}

func TestTenantPartitions_SaysThatATopicIsMissing(t *testing.T) {
	t.Parallel()
	environ := ownStores(t)
	environ[4] = "TENANTFLOW_POSTGRES_DSN=" + postgrestest.New(t)
	_, errOut, code := tenantflow(t, environ, "tenant", "partitions")
	if code != exitFailed || !strings.Contains(errOut, `does not exist; run "tenantflow migrate"`) {
		t.Errorf("exit code %d: %s", code, errOut)
	}
}

func TestConfigCheckListsAllProblemsAsJSON(t *testing.T) {
	t.Parallel()
	stdout, _, code := tenantflow(t, append(deadStores(), "TENANTFLOW_KAFKA_TLS=x", "TENANTFLOW_TOPIC_PARTITIONS=0", "TENANTFLOW_X=1"), "config", "check", "-o", "json")
	var got struct {
		Valid    bool
		Problems []config.Problem
	}
	if err := json.Unmarshal([]byte(stdout), &got); err != nil {
		t.Fatalf("%v: %s", err, stdout)
	}
	if code != exitInvalid || got.Valid || len(got.Problems) != 3 || got.Problems[2].Setting != "TENANTFLOW_X" || got.Problems[0].Do == "" {
		t.Errorf("exit code %d, %+v", code, got)
	}
}

func TestConfigPrintShowsWhereValuesComeFromAndNoSecret(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(path, []byte("hunter2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	environ := []string{
		"TENANTFLOW_POSTGRES_DSN=postgres://u:hunter2@h/db", "TENANTFLOW_KAFKA_SASL_MECHANISM=PLAIN",
		"TENANTFLOW_KAFKA_SASL_USERNAME=u", "TENANTFLOW_KAFKA_SASL_PASSWORD_FILE=" + path,
	}
	stdout, stderr, code := tenantflow(t, environ, "config", "print", "-o", "json")
	var settings []config.Setting
	if err := json.Unmarshal([]byte(stdout), &settings); err != nil || code != exitDone {
		t.Fatalf("exit code %d, %v: %s", code, err, stdout)
	}
	got := map[string]config.Setting{}
	for _, s := range settings {
		got[strings.TrimPrefix(s.Name, config.Prefix)] = s
	}
	for name, want := range map[string]struct{ value, source string }{
		"POSTGRES_DSN":        {"postgres://u:xxxxx@h/db", "environment"},
		"KAFKA_SASL_PASSWORD": {"xxxxx", "file " + path},
		"USAGE_BATCH_ROWS":    {"100000", "default"},
		"DRAGONFLY_URL":       {"", "unset"},
	} {
		if s := got[name]; s.Value != want.value || s.Source != want.source {
			t.Errorf("%s: %+v, want %+v", name, s, want)
		}
	}
	table, _, _ := tenantflow(t, environ, "config", "print")
	if strings.Contains(stdout+stderr+table, "hunter2") {
		t.Error("the password is shown")
	}
	if lines := strings.Count(table, "\n"); lines != len(settings)+1 {
		t.Errorf("the table has %d lines for %d settings", lines, len(settings))
	}
}

func TestConfigDocsPrintsTheReference(t *testing.T) {
	t.Parallel()
	want, err := os.ReadFile("../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	if stdout, _, code := tenantflow(t, nil, "config", "docs"); code != exitDone || stdout != string(want) {
		t.Errorf("exit code %d, and not docs/configuration.md:\n%s", code, stdout)
	}
}

func TestTheHelpOfEveryCommandIsAsRecorded(t *testing.T) {
	t.Parallel()
	root := newRootCommand(&app{})
	root.InitDefaultHelpCmd()
	var got strings.Builder
	var walk func(cmd *cobra.Command)
	walk = func(cmd *cobra.Command) {
		if cmd.Hidden || cmd.Name() == "help" {
			return
		}
		var help bytes.Buffer
		cmd.SetOut(&help)
		if err := cmd.Help(); err != nil {
			t.Fatal(err)
		}
		got.WriteString("$ " + cmd.CommandPath() + " --help\n" + help.String() + "\n")
		for _, child := range cmd.Commands() {
			walk(child)
		}
	}
	walk(root)
	const path = "testdata/help.txt"
	if *update {
		if err := os.WriteFile(path, []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got.String() != string(want) {
		t.Errorf("the help is not what %s says: run go test ./cmd/tenantflow -update and look at the diff. It is now\n%s", path, got.String())
	}
}
