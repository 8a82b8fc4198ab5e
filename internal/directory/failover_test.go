package directory_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"tenantflow/internal/directory"
	"tenantflow/internal/engine"
	"tenantflow/internal/engine/enginetest"
	"tenantflow/internal/engine/enginetest/postgrestest"
)

// A standby that never got the primary's last transactions takes over: it gives their ids and versions to others.
func TestFeed_FailoverToAStandbyWithoutTheTail(t *testing.T) {
	t.Parallel()
	for name, promote := range map[string]func(t *testing.T, data string){
		"as it was": func(*testing.T, string) {},
		// As a standby that is promoted: on a timeline of its own.
		"promoted": func(t *testing.T, data string) {
			t.Helper()
			if err := os.WriteFile(filepath.Join(data, "recovery.signal"), nil, 0o644); err != nil {
				t.Fatal(err)
			}
			settings, err := os.OpenFile(filepath.Join(data, "postgresql.auto.conf"), os.O_APPEND|os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer settings.Close()
			if _, err := settings.WriteString("restore_command = 'false'\n"); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			failover(t, promote)
		})
	}
}

func failover(t *testing.T, promote func(t *testing.T, data string)) {
	t.Helper()
	dir := t.TempDir()
	server := enginetest.Postgres(t, func(o *engine.Options) { o.Dir = dir })
	w := newWorldOn(t, postgrestest.On(t, server.DSN()))
	w.register(1, "free", 1, 2)
	w.register(2, "free", 3, 3)
	n, other := w.start(), w.start()

	data, standby := filepath.Join(dir, "data"), filepath.Join(dir, "standby")
	if err := server.Stop(); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), "cp", "-a", data, standby).CombinedOutput(); err != nil {
		t.Fatalf("copy the data: %s, %v", out, err)
	}
	promote(t, standby)
	if err := server.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	// A connection of before may be used once more.
	w.eventually("the server answers", func() bool { return w.sql.Ping(t.Context()) == nil })
	traffic := func(n int) {
		for range n {
			w.exec("UPDATE companies SET name = name || '.' WHERE company_id = $1", w.company(2))
		}
	}
	traffic(40)
	w.setTier(1, "enterprise")
	for _, n := range []*node{n, other} {
		w.eventually("the tier of the old primary is seen", func() bool { return n.tierOf(t.Context(), w.user(1)) == "enterprise" })
	}
	n.must(t, w.user(2))
	if _, err := n.CompanyConfig(t.Context(), w.company(1)); err != nil {
		t.Fatal(err)
	}

	if err := server.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(data, data+".lost"); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(standby, data); err != nil {
		t.Fatal(err)
	}
	if err := server.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.eventually("the new server takes over", func() (writes bool) {
		return w.sql.QueryRow(t.Context(), "SELECT NOT pg_is_in_recovery()").Scan(&writes) == nil && writes
	})
	w.eventually("what others read by themselves is not the old primary's", func() bool {
		return w.redis.Exists(t.Context(), "subscription:{"+w.user(2)+"}", "company_config:{"+w.company(1)+"}").Val() == 0
	})
	// Below the ids and versions that the old one had reached.
	w.setTier(1, "pro")
	for _, n := range []*node{n, other, w.start()} {
		for user := 1; user <= 2; user++ {
			w.eventually("the upgrade is seen", func() bool { return n.tierOf(t.Context(), w.user(user)) == "pro" })
		}
		w.eventually("the company's is seen", func() bool {
			c, err := n.CompanyConfig(t.Context(), w.company(1))
			return err == nil && c.Tier == "pro"
		})
	}
	traffic(60) // past them
	w.eventually("Dragonfly has it", func() bool {
		cached, err := other.cache.Subscriptions(t.Context(), []string{w.user(1), w.user(2)})
		return err == nil && tierIn(cached[0]) == "pro" && tierIn(cached[1]) == "pro"
	})
	w.setTier(1, "free")
	for _, n := range []*node{n, other} {
		w.eventually("the next change is seen", func() bool { return n.tierOf(t.Context(), w.user(1)) == "free" })
		if !n.log.has("another server has taken over") {
			t.Error("nothing is logged")
		}
	}
}

func tierIn(s *directory.Subscription) string {
	if s == nil {
		return "none"
	}
	return s.Tier
}
