package consumers_test

import (
	"context"
	"encoding/json"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"tenantflow/consumers"
	"tenantflow/events"
	"tenantflow/internal/engine/enginetest"
)

// The topic of configurations is compacted: what lies last is what a reader has that begins afresh, whatever its version. One
// configuration of a company is stored, and what comes after it is published by the consumer of the other topic before it is.
func TestAConfigurationThatIsPublishedLateIsNotTheLastOne(t *testing.T) {
	t.Parallel()
	config := func(id string, at time.Time) tenantMessage {
		return tenantEvent(id+"-config", events.TypeConfigUpdated, id, `"config":{"theme":"dark"}`, at)
	}
	upgrade := func(id string, at time.Time) tenantMessage {
		return tenantEvent(id+"-up", events.TypeUpgradeRequested, id, `"new_tier":"pro"`, at)
	}
	purge := func(id string, at time.Time) tenantMessage {
		return tenantEvent(id+"-close", events.TypeCompanyClosed, id, `"purge":true`, at)
	}
	for _, c := range []struct {
		name        string
		late, newer func(id string, at time.Time) tenantMessage
		stops       bool // who was to publish the late one
	}{
		{"held up", config, upgrade, false},
		{"stopped", config, upgrade, true},
		{"held up, and the company is purged", upgrade, purge, false},
		{"stopped, and the company is purged", upgrade, purge, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f := newTenantFixture(t, enginetest.SharedKafka(t), "")
			id, now := unique(), time.Now().Add(-time.Hour)
			f.send(t, registration(id, now))
			var armed atomic.Bool
			waits, goOn := make(chan struct{}), make(chan struct{})
			ctx, stopping := context.WithCancel(t.Context())
			stop := background(t, func(stopped context.Context) error {
				context.AfterFunc(stopped, stopping)
				return tenantService{noSweep: true, step: func(at consumers.TenantStep) {
					if at == consumers.TenantApplied && armed.CompareAndSwap(true, false) {
						close(waits)
						select {
						case <-goOn:
						case <-ctx.Done():
						}
					}
				}}.run(stopped, f)
			})
			f.awaitConsumed(t)
			f.awaitPublished(t)
			armed.Store(true)
			f.send(t, c.late(id, now.Add(time.Minute)))
			<-waits
			newer := c.newer(id, now.Add(2*time.Minute))
			f.send(t, newer)
			f.log(newer.Topic).AwaitConsumed(t)
			if c.stops {
				if err := stop(); err != nil {
					t.Fatal(err)
				}
				f.start(t, tenantService{})
			} else {
				close(goOn)
			}
			f.awaitConsumed(t)
			f.awaitPublished(t)
			var last struct{ Version int64 } // 0: a tombstone
			records := 0
			f.log(events.TopicCompanyConfig).ReadAll(t, f.prefix+events.TopicCompanyConfig, func(r *events.Record) {
				records, last.Version = records+1, 0
				if len(r.Value) == 0 {
					return
				}
				if err := json.Unmarshal(r.Value, &last); err != nil {
					t.Fatal(err)
				}
			})
			if has := f.query(t, "SELECT coalesce(max(version), 0) FROM company_config"); records < 3 || has[0] != fmt.Sprintf("(%d)", last.Version) {
				t.Errorf("of %d records the last has version %d, and the company has %v", records, last.Version, has)
			}
		})
	}
}
