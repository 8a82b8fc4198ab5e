package postgres

import (
	"testing"

	"github.com/jackc/pgx/v5"

	"tenantflow/internal/engine/enginetest"
	"tenantflow/internal/tenant"
	"tenantflow/migrations"
)

// Every statement fits the tables, and its columns are those of the struct that it is read into.
func TestQueries_FitTheSchema(t *testing.T) {
	t.Parallel()
	cfg, err := pgx.ParseConfig(enginetest.NewPostgresDatabase(t))
	if err != nil {
		t.Fatal(err)
	}
	tables, err := migrations.OpenPostgres(t.Context(), cfg, false)
	if err != nil {
		t.Fatal(err)
	}
	defer tables.Close()
	if _, err := tables.Up(t.Context()); err != nil {
		t.Fatal(err)
	}
	conn, err := pgx.ConnectConfig(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	enginetest.PrepareQueries(t, conn, "queries", map[string]func(pgx.CollectableRow) error{
		"audit_chain":                  enginetest.ByName[chainRow],
		"backlog":                      enginetest.ByName[Backlog],
		"blocks":                       enginetest.ByName[Block],
		"business_charges":             enginetest.ByName[MonthCharge],
		"business_companies":           enginetest.ByName[BusinessCompany],
		"business_isolation":           enginetest.ByName[IsolationCheck],
		"business_latency":             enginetest.ByName[QueryLatency],
		"business_measures":            enginetest.ByName[CompanyMeasure],
		"business_report":              enginetest.ByName[BusinessReport],
		"business_report_last":         enginetest.ByName[BusinessReport],
		"business_reports_unpublished": enginetest.ByName[BusinessReport],
		"churn_outcomes":               enginetest.ByName[ChurnOutcome],
		"company":                      enginetest.ByName[companyRow],
		"company_due":                  enginetest.ByName[companyDueRow],
		"config_result":                enginetest.ByName[inboxText],
		"configs":                      enginetest.ByName[CompanyConfig],
		"configs_now":                  enginetest.ByName[ConfigNow],
		"due":                          enginetest.ByName[dueRow],
		"forecast_outcomes":            enginetest.ByName[ForecastOutcome],
		"inbox_first":                  enginetest.ByName[inboxText],
		"inbox_overdue":                enginetest.ByName[inboxText],
		"inbox_settled":                enginetest.ByName[settledRow],
		"inbox_unpublished":            enginetest.ByName[inboxText],
		"job_list":                     enginetest.ByName[JobInfo],
		"job_outbox":                   enginetest.ByName[jobOutboxRow],
		"job_slot":                     enginetest.ByName[JobSlot],
		"job_state":                    enginetest.ByName[JobState],
		"job_take":                     enginetest.ByName[jobTakenRow],
		"job_watch":                    enginetest.ByName[JobWatch],
		"overrides":                    enginetest.ByName[OverriddenLimit],
		"payment":                      enginetest.ByName[tenant.Payment],
		"recommendations_unpublished":  enginetest.ByName[UnpublishedRecommendation],
		"revenue":                      enginetest.ByName[CompanyRevenue],
		"subscription":                 enginetest.ByName[subscriptionRow],
		"tenant_load":                  enginetest.ByName[loadedRow],
		"tenant_lock":                  enginetest.ByName[lockRow],
		"upsell_outcomes":              enginetest.ByName[UpsellOutcome],
		"users":                        enginetest.ByName[userRow],
		"users_former":                 enginetest.ByName[formerRow],
		"void_backlog":                 enginetest.ByName[VoidBacklog],
		"void_claim":                   enginetest.ByName[voidRow],
		"changes":                      func(pgx.CollectableRow) error { return nil }, // by position
		"billing_books":                enginetest.ByName[BillingBooks],
		"billing_companies":            enginetest.ByName[BillingCompany],
		"billing_export":               enginetest.ByName[BillingExport],
		"billing_foreign":              enginetest.ByName[UserMembership],
		"billing_unpublished":          enginetest.ByName[BillingExport],
	})
}
