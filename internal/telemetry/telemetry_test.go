package telemetry

import (
	"encoding/json"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"tenantflow/internal/config"
)

func TestALogLineIsJSONUnlessAPersonWatches(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	NewLogger(&out, slog.LevelInfo, config.LogAuto).Info("stored", "took", 1500*time.Millisecond, "rows", 7)
	var line map[string]any
	if err := json.Unmarshal([]byte(out.String()), &line); err != nil {
		t.Fatalf("%v: %s", err, out.String())
	}
	if line["msg"] != "stored" || line["took"] != "1.5s" || line["rows"] != 7.0 {
		t.Errorf("got %v", line)
	}
	if at, err := time.Parse(time.RFC3339, line["time"].(string)); err != nil || at.Location() != time.UTC {
		t.Errorf("the time is %v", line["time"])
	}
}

func TestTheFormatAndLevelAreAsAskedFor(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	log := NewLogger(&out, slog.LevelWarn, config.LogText)
	log.Info("quiet")
	log.Warn("loud")
	if got := out.String(); strings.Contains(got, "quiet") || !strings.Contains(got, "level=WARN msg=loud") {
		t.Errorf("got %q", got)
	}
}

func TestFilesPipesAndTheNullDeviceAreNoTerminals(t *testing.T) {
	t.Parallel()
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	file, err := os.Create(t.TempDir() + "/f")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for _, w := range []any{null, file, &strings.Builder{}} {
		if IsTerminal(w) {
			t.Errorf("%v is taken for a terminal", w)
		}
	}
}
