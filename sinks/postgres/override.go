package postgres

import (
	"context"
	_ "embed"
	"time"

	"github.com/jackc/pgx/v5"

	"tenantflow/events"
	"tenantflow/internal/tenant"
)

var (
	//go:embed queries/overrides_put.sql
	overridesPutSQL string
	//go:embed queries/company_due.sql
	companyDueSQL string
	//go:embed queries/overrides.sql
	overridesSQL string
)

// overrides queues the limits that hold in place of the tier's. A trigger brings them into subscriptions.effective_limits, which is what
// all others read, and tells the change to those who keep copies.
func (x *tenantTx) overrides(b *pgx.Batch, all tenant.Overrides) {
	if all == nil {
		all = tenant.Overrides{} // a list, and not null
	}
	b.Queue(overridesPutSQL, x.state.CompanyID, all, x.cause.Partition)
}

// keepCompanyPartition queues which partition of the company topic decides about the ends of the company's overrides: that of its last
// event. Those that the event itself writes have it already.
func (x *tenantTx) keepCompanyPartition(b *pgx.Batch) {
	if len(x.state.Overrides) == 0 || ofSubscription(x.cause.Event.Type) {
		return
	}
	b.Queue("UPDATE public.limit_overrides SET event_partition = $2 WHERE company_id = $1 AND event_partition IS DISTINCT FROM $2",
		x.state.CompanyID, x.cause.Partition)
}

// CompanyDue does for company.events what Due does for subscription.events. Of a company whose overrides have ended it returns the event of
// the last one: those that ended before end before it when it is applied.
func (t *Tenants) CompanyDue(ctx context.Context, partition int, by time.Time, limit int) ([]*events.Event, error) {
	var until *time.Time
	if !by.IsZero() {
		until = &by
	}
	return collect(ctx, t.store, "look for overrides that have ended", readCompanyDue, companyDueSQL, partition, until, events.TopicCompany, dueAgain, limit)
}

// A companyDueRow is a row of company_due.sql.
type companyDueRow struct {
	CompanyID, LimitName string
	ExpiresAt            time.Time
}

func readCompanyDue(row pgx.CollectableRow) (*events.Event, error) {
	r, err := pgx.RowToStructByName[companyDueRow](row)
	if err != nil {
		return nil, err
	}
	return tenant.DueCause(r.CompanyID, tenant.Due{Kind: tenant.DueOverride, Name: r.LimitName, At: r.ExpiresAt}).Event, nil
}

// An OverriddenLimit says of how many companies a limit is overridden.
type OverriddenLimit struct {
	LimitName string
	Companies int64
}

// Overridden counts the overrides of open companies, by limit. What is not overridden is not in the list.
func (t *Tenants) Overridden(ctx context.Context) ([]OverriddenLimit, error) {
	return collect(ctx, t.store, "count the overrides", pgx.RowToStructByName[OverriddenLimit], overridesSQL)
}
