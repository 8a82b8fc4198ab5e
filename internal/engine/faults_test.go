package engine_test

import (
	"strings"
	"syscall"
	"testing"

	"tenantflow/internal/engine/enginetest"
)

func TestFaults_BreakTheNamedCallAndNoOther(t *testing.T) {
	t.Parallel()
	c, faults := enginetest.FaultyClickHouse(t)
	query := func(sql string) (string, error) {
		answer, err := c.Query(t.Context(), sql)
		return strings.TrimSpace(answer), err
	}
	must := func(sql, want string) {
		t.Helper()
		if got, err := query(sql); err != nil || got != want {
			t.Errorf("%s: %q, %v; want %q", sql, got, err, want)
		}
	}
	for _, table := range []string{"meant", "other"} {
		must("CREATE TABLE tenantflow."+table+" (n UInt8) ENGINE = MergeTree ORDER BY n SETTINGS non_replicated_deduplication_window = 100", "")
		must("SYSTEM STOP MERGES tenantflow."+table, "")
	}
	dir := enginetest.DataDir(t, c, "tenantflow", "meant")

	faults.Arm(t, enginetest.Fault{Call: enginetest.Rename, Path: dir + "tmp_insert_", Nth: 2, Error: syscall.ENOSPC})
	must("INSERT INTO tenantflow.other VALUES (1)", "")
	must("INSERT INTO tenantflow.meant VALUES (1)", "")
	must("INSERT INTO tenantflow.other VALUES (2)", "")
	if faults.Struck(t) {
		t.Fatal("the fault struck before its second call")
	}
	if _, err := query("INSERT INTO tenantflow.meant VALUES (2)"); err == nil || !strings.Contains(err.Error(), "No space left") || !faults.Struck(t) {
		t.Errorf("the insert whose part could not be moved: %v", err)
	}
	must("INSERT INTO tenantflow.meant VALUES (3)", "")
	must("SELECT groupArray(n) FROM (SELECT n FROM tenantflow.meant ORDER BY n)", "[1,3]")

	faults.Arm(t, enginetest.Fault{Call: enginetest.Rename, Path: dir + "tmp_insert_"})
	must("INSERT INTO tenantflow.other VALUES (6)", "")
	if _, err := query("INSERT INTO tenantflow.meant VALUES (6)"); err == nil {
		t.Error("the insert that killed the server succeeded")
	}
	<-c.Exited()
	if !faults.Struck(t) {
		t.Error("the server died, but not of the fault")
	}
	if err := c.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	must("SELECT groupArray(n) FROM (SELECT n FROM tenantflow.meant ORDER BY n)", "[1,3]")
	must("SELECT groupArray(n) FROM (SELECT n FROM tenantflow.other ORDER BY n)", "[1,2,6]")
	must("INSERT INTO tenantflow.meant VALUES (7)", "")

	faults.Arm(t, enginetest.Fault{Call: enginetest.Write, Path: dir + "deduplication_logs/", Nth: 2})
	must("INSERT INTO tenantflow.meant VALUES (8)", "")
	if _, err := query("INSERT INTO tenantflow.meant VALUES (9)"); err == nil {
		t.Error("the insert that killed the server succeeded")
	}
	<-c.Exited()
	if err := c.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	must("SELECT groupArray(n) FROM (SELECT n FROM tenantflow.meant ORDER BY n)", "[1,3,7,8]")
}
