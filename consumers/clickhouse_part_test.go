package consumers_test

import (
	"sync"
	"syscall"
	"testing"

	"tenantflow/consumers"
	"tenantflow/internal/engine/enginetest"
	"tenantflow/internal/kafka/kafkatest"
	"tenantflow/internal/model"
)

// The answer to an insert is lost, its part is there, and its token is not: a server of a later version was killed
// between the two, or the machine lost power. The rows that are sent again land a second time, in the table whose token
// it was.
func TestUsage_APartWithoutItsTokenIsNotDoubled(t *testing.T) {
	t.Parallel()
	for table, view := range viewsOf() {
		t.Run(table, func(t *testing.T) {
			t.Parallel()
			b := newBrokenServer(t, 1)
			messages, want := traffic(t, model.Config{Seed: 34, Count: 900, Resends: 0.02})
			b.publish(t, messages)
			b.faults.Arm(t, enginetest.Fault{Call: enginetest.Write, Path: enginetest.DataDir(t, b.server, "tenantflow", table) + "deduplication_logs/", Error: syscall.ENOSPC})
			proxy := enginetest.Proxy(t, hostOf(t, b.dsn))
			lost := proxy.SwallowResponse(isInsert)
			c := faulty(300)
			c.insertTimeout = unhurried // the insert whose answer is lost must have landed
			c.dsn = via(t, b.dsn, proxy.Addr())
			unknown, restarted := make(chan struct{}), make(chan struct{})
			var once sync.Once
			c.onStep = func(s consumers.UsageStep) {
				if s == consumers.StepUnknown {
					once.Do(func() {
						close(unknown)
						<-restarted
					})
				}
			}
			stop := b.start(t, c)
			kafkatest.Await(t, "the answer of an insert to be lost", lost.Caught())
			kafkatest.Await(t, "the service to notice", unknown)
			if !b.faults.Struck(t) {
				t.Error("the token was written")
			}
			// It has the token in memory, and forgets it with that.
			b.restart(t)
			close(restarted)
			b.finish(t, stop)
			b.verifyAfter(t, want, serverStep{table: table, view: view, call: enginetest.Rename})
		})
	}
}

// What was deleted by hand and is read again by another group is stored again: the tokens of the rows that are gone prove
// nothing.
func TestUsage_RowsDeletedByHandComeBack(t *testing.T) {
	t.Parallel()
	f := newFixture(t, fixtureOptions{partitions: 1})
	messages, want := traffic(t, model.Config{Seed: 21, Count: 300})
	f.publish(t, messages)
	f.finish(t, f.start(t, faulty(100)))
	f.verify(t, want)
	if err := f.db.Exec(t.Context(), "ALTER TABLE usage_tracking DELETE WHERE 1 SETTINGS mutations_sync = 2"); err != nil {
		t.Fatal(err)
	}
	f.Group += ".again"
	f.finish(t, f.start(t, faulty(100)))
	rows, err := model.ReadRows(t.Context(), f.sql)
	if err != nil {
		t.Fatal(err)
	}
	if d := model.Compare(rows, want.Tables); len(d) > 0 {
		t.Error(model.Describe(d))
	}
}
