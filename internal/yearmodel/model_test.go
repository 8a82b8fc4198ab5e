package yearmodel

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
)

// calm is a model of one company on pro with two users, registered on 10 August and charged from 20 August on.
func calm() (*Model, *Company) {
	at := time.Date(2026, 8, 10, 0, 0, 0, 0, time.UTC)
	c := &Company{ID: "acme", registered: at, tier: pro, held: []tierFrom{{at, free}, {at.AddDate(0, 0, 10), pro}},
		levels: []level{{at.AddDate(0, 0, 10), 4900}}, users: []*user{{id: "u-1", index: 0, joined: at}, {id: "u-2", index: 1, joined: at}}}
	for n := range month(3) {
		c.charges = append(c.charges, charge{monthOf(at) + n, pro, 4900})
	}
	return NewModel(&World{Companies: []*Company{c}}), c
}

// use adds calls of a user on a day.
func (m *Model) use(user int, tier string, at time.Time, calls int, sign int8) {
	for range calls {
		m.Add(&Row{Sign: sign, At: at.UnixMilli(), Tier: tier, Points: 10, RevenueMillionths: 500_000, user: user})
	}
}

func TestModel_ByHand(t *testing.T) {
	t.Parallel()
	m, c := calm()
	at := time.Date(2026, 11, 15, 12, 0, 0, 0, time.UTC)
	m.use(0, pro, at.AddDate(0, -3, 0), 9, 1)
	m.use(0, pro, at.AddDate(0, -2, 0), 4, 1)
	m.use(0, "legacy", at.AddDate(0, -1, 0), 4, 1)
	m.use(0, "legacy", at.AddDate(0, -1, 0), 1, -1)
	m.use(1, pro, at.AddDate(0, -2, 0), 2, 1)
	m.use(1, pro, at.AddDate(0, -2, 0), 2, -1)
	limit := int64(2)
	c.limit = &limit
	answers := map[string]string{
		"revenue": `{"company_id":"acme","currency":"USD","period_months":3,"total_revenue":98.00,"avg_monthly_revenue":32.67,"attributed_revenue":3.500000,` +
			`"revenue_trend":{"months":2,"slope_per_month":0.00,"growth_percentage":0.00},"tier_distribution":[{"subscription_tier":"pro","revenue":98.00,"percentage":100.00,"months":2},{"subscription_tier":"legacy","revenue":0.00,"percentage":0.00,"months":0}],` +
			`"monthly_breakdown":[{"month":"2026-09","subscription_tier":"pro","monthly_revenue":49.00,"attributed_revenue":2.000000,"active_users":1,"total_api_usage":4},{"month":"2026-10","subscription_tier":"legacy","monthly_revenue":0.00,"attributed_revenue":1.500000,"active_users":1,"total_api_usage":3},{"month":"2026-10","subscription_tier":"pro","monthly_revenue":49.00,"attributed_revenue":0.000000,"active_users":0,"total_api_usage":0}],` +
			`"monthly_totals":[{"month":"2026-09","complete":true,"revenue":49.00,"attributed_revenue":2.000000,"active_users":1,"total_api_usage":4},{"month":"2026-10","complete":true,"revenue":49.00,"attributed_revenue":1.500000,"active_users":1,"total_api_usage":3},{"month":"2026-11","complete":false,"revenue":0.00,"attributed_revenue":0.000000,"active_users":0,"total_api_usage":0}],` +
			`"mrr_movements":[{"month":"2026-09","start":49.00,"new":0.00,"expansion":0.00,"reactivated":0.00,"contraction":0.00,"churned":0.00,"end":49.00},{"month":"2026-10","start":49.00,"new":0.00,"expansion":0.00,"reactivated":0.00,"contraction":0.00,"churned":0.00,"end":49.00},{"month":"2026-11","start":49.00,"new":0.00,"expansion":0.00,"reactivated":0.00,"contraction":0.00,"churned":0.00,"end":49.00}],` +
			`"forecast":null,"forecast_reason":"too little","analysis_date":"2026-11-15T12:00:00Z"}`,
		"upsell":     `[]`,
		"churn-risk": `{"company_id":"acme","total_at_risk_users":1,"churn_risks":[{"user_id":"u-1","subscription_tier":"pro","churn_risk_score":66.67,"usage_trend":{"current_month":3,"previous_month":4,"two_months_ago":9,"decline_percentage":66.67},"retention_strategy":"training_offer"}],"recommended_actions":["review_account","offer_training"],"analysis_date":"2026-11-15T12:00:00Z"}`,
	}
	for _, a := range []Analysis{Revenue(3), Upsell(), ChurnRisk()} {
		if n, found := m.Compare(a, c, at, []byte(answers[a.Name])); len(found) > 0 || n == 0 {
			t.Errorf("%s: %d members, %v", a.Name, n, found)
		}
	}
	// 3 calls on one day of thirty, of 2: (0.003 x 40) + (1/30 x 30) + 20, and the tier above is without a limit.
	at = time.Date(2026, 11, 14, 12, 0, 0, 0, time.UTC)
	const want = `[{"user_id":"u-1","current_tier":"pro","recommended_tier":"enterprise","opportunity_score":21.12,"current_usage":{"avg_daily_calls":3.00,"avg_daily_data":30.00,"active_days":1},"potential_revenue_increase":450.00,"currency":"USD"}]`
	if _, found := m.Compare(Upsell(), c, at, []byte(want)); len(found) > 0 {
		t.Error(found)
	}
}

// A comparison that sees no difference would prove nothing: every member of an answer that is changed is found.
func TestCompare_FindsEveryChange(t *testing.T) {
	t.Parallel()
	w := small(t, 3)
	m := NewModel(w)
	if err := w.Usage(func(r *Row) error { m.Add(r); return nil }); err != nil {
		t.Fatal(err)
	}
	changed := 0
	for _, c := range w.Companies {
		for _, a := range Analyses() {
			text, err := json.Marshal(a.answer(m, c, w.Now))
			if err != nil {
				t.Fatal(err)
			}
			if r, is := a.answer(m, c, w.Now).(*revenueAnswer); is && r.Forecast != nil {
				continue // the answer has values that the model has not
			}
			text = []byte(strings.Replace(string(text), `"forecast":null`, `"forecast":null,"forecast_reason":"none"`, 1))
			if _, found := m.Compare(a, c, w.Now, text); len(found) > 0 {
				t.Fatalf("the model's own answer: %v", found)
			}
			for i := range text {
				other := []byte(string(text))
				switch {
				case text[i] >= '0' && text[i] < '9':
					other[i]++
				case strings.HasPrefix(string(text[i:]), "true"):
					other = []byte(string(text[:i]) + "false" + string(text[i+4:]))
				default:
					continue
				}
				if _, found := m.Compare(a, c, w.Now, other); len(found) == 0 {
					t.Fatalf("%s of %s: a change at %d of %s is not seen", a.Name, c.ID, i, other)
				}
				if changed++; changed%50 == 0 {
					break // some of each answer
				}
			}
		}
	}
	if changed < 300 {
		t.Errorf("only %d changes were tried", changed)
	}
}

func TestCompare_ChecksWhatIsKnownOfAForecast(t *testing.T) {
	t.Parallel()
	m, c := calm()
	c.charges = append(c.charges, charge{monthOf(c.registered) + 3, pro, 4900})
	at := time.Date(2026, 12, 15, 12, 0, 0, 0, time.UTC)
	text, err := json.Marshal(m.revenue(c, 1, at))
	if err != nil {
		t.Fatal(err)
	}
	month := func(name, low, value, high string) string {
		return `{"month":"` + name + `","revenue":` + value + `,"low":` + low + `,"high":` + high + `}`
	}
	with := func(first string) []byte {
		forecast := `"forecast":{"method":"any","history_months":4,"interval_percentage":80,"months":[` + first + `,` + month("2027-01", "49.00", "49.00", "49.00") + `,` + month("2027-02", "49.00", "49.00", "49.00") + `]}`
		s := string(text)
		return []byte(s[:strings.Index(s, `"forecast":`)] + forecast + "}")
	}
	if _, found := m.Compare(Revenue(1), c, at, with(month("2026-12", "49.00", "49.00", "49.00"))); len(found) > 0 {
		t.Error(found)
	}
	for _, bad := range []string{month("2026-11", "49.00", "49.00", "49.00"), month("2026-12", "49.00", "49.01", "49.00"), month("2026-12", "50.00", "49.00", "49.00"), `{"month":"2026-12"}`} {
		if _, found := m.Compare(Revenue(1), c, at, with(bad)); len(found) == 0 {
			t.Errorf("%s passes", bad)
		}
	}
	c.charges[3].minor = 9800 // not equal any more
	for bad, ok := range map[string]bool{month("2026-12", "0.00", "70.00", "90.00"): true, month("2026-12", "71.00", "70.00", "90.00"): false, month("2026-12", "1.00", "70.00", "69.99"): false} {
		if _, found := m.Compare(Revenue(1), c, at, with(bad)); onlyFirst(found) != ok {
			t.Errorf("%s: %v", bad, found)
		}
	}
}

// onlyFirst reports whether no difference is about the forecast's first month.
func onlyFirst(found []Difference) bool {
	for _, d := range found {
		if strings.Contains(d.Field, "forecast.months[0]") {
			return false
		}
	}
	return true
}

// How fast rows are made, and added up by the model.
//
//	go test ./internal/yearmodel -run '^$' -bench Usage -benchtime 1x
func BenchmarkWorld_Usage(b *testing.B) {
	w, err := New(Config{Seed: 1, Companies: 200, Users: 5000, Rows: 2_000_000, Now: end})
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		m := NewModel(w)
		if err := w.Usage(func(r *Row) error { m.Add(r); return nil }); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(w.Rows)*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
}
