package engine_test

import (
	"strings"
	"testing"

	"tenantflow/internal/engine/enginetest"
)

func TestClickHouseKeepsItsDataOverStopAndKill(t *testing.T) {
	t.Parallel()
	c := enginetest.ClickHouse(t)
	query := func(sql string) string {
		answer, err := c.Query(t.Context(), sql)
		if err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
		return strings.TrimSuffix(answer, "\n")
	}
	query("CREATE TABLE tenantflow.kept (at DateTime64(9), v String) ENGINE = MergeTree ORDER BY at")
	keepsItsData(t, c,
		func(v string) { query("INSERT INTO tenantflow.kept VALUES (now64(9), '" + v + " ')") },
		func() string {
			return query("SELECT arrayStringConcat(groupArray(v)) FROM (SELECT v FROM tenantflow.kept ORDER BY at)")
		})
}
