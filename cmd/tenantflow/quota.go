package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"tenantflow/events"
	"tenantflow/internal/config"
	"tenantflow/internal/directory"
	"tenantflow/internal/httpapi"
	"tenantflow/internal/service"
	"tenantflow/internal/tier"
)

// showTimeout is how long a command that only shows something waits for one store.
const showTimeout = 4 * time.Second

func newQuotaCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "quota",
		Short: "Look at the daily quotas of users",
		Args:  noArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newQuotaShowCommand(a))
	return cmd
}

func newQuotaShowCommand(a *app) *cobra.Command {
	var date string
	cmd := &cobra.Command{
		Use:   "show USER [--date YYYY-MM-DD]",
		Short: "Show what a user has used of a day's quota",
		Long: `Show reads a user's counters of one UTC day from Dragonfly and the user's tier and limits from Postgres, past every
cache: it shows what the stores hold now. Counters are kept for TENANTFLOW_QUOTA_LATENESS after their day.

The limit is today's, also for an earlier date, and the thresholds are those of the user's tier in TENANTFLOW_TIERS_FILE now. While counters are rebuilt after a loss they may be too low; it says so.

Exit codes: 0 shown; 1 a store does not answer, or the user is not known and has used nothing; 2 the user id, the date or
the configuration is wrong.`,
		Example: `  tenantflow quota show u-1
  tenantflow quota show u-1 --date 2026-11-22 -o json`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return invalid("%s takes one user id, but got %d arguments (see %[1]s --help)", cmd.CommandPath(), len(args))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if !events.ValidID(args[0]) {
				return invalid("%q is no user id: it has 1 to 50 letters, digits, '_' or '-'", args[0])
			}
			now := time.Now().UTC()
			day := now.Truncate(24 * time.Hour)
			if date != "" {
				var err error
				if day, err = time.Parse(time.DateOnly, date); err != nil {
					return invalid("--date %s: it is no day; write it as %s", date, now.Format(time.DateOnly))
				}
			}
			cfg, err := a.config(config.Dragonfly, config.Postgres)
			if err != nil {
				return err
			}
			q, err := readQuota(cmd.Context(), cfg, args[0], day)
			if err != nil {
				return err
			}
			if !q.Known && q.APICalls == 0 && q.DataPoints == 0 {
				return fmt.Errorf("user %s is not known, and nothing was counted on %s", q.UserID, q.Date)
			}
			return a.show(cmd.OutOrStdout(), q, func() *table { return q.table(now) })
		},
	}
	cmd.Flags().StringVar(&date, "date", "", "UTC day to show, as YYYY-MM-DD (default today)")
	return cmd
}

// shownQuota is what is shown of a user and a day.
type shownQuota struct {
	UserID     string      `json:"user_id"`
	Known      bool        `json:"known"` // in Postgres; what is behind it in the list is left out otherwise
	CompanyID  string      `json:"company_id,omitempty"`
	Tier       string      `json:"tier,omitempty"`
	Status     string      `json:"status,omitempty"`
	Billing    string      `json:"billing_status,omitempty"`
	DailyLimit *tier.Limit `json:"daily_limit,omitempty"`
	Percentage json.Number `json:"usage_percentage,omitempty"` // two decimals; none without a limit
	Exceeded   bool        `json:"exceeded"`
	Reason     string      `json:"reason,omitempty"`   // why it is exceeded whatever was used, as the HTTP interface says it
	Thresholds []int       `json:"thresholds_reached"` // percent

	Date       string `json:"date"`
	APICalls   int64  `json:"current_usage"`
	DataPoints int64  `json:"data_points"`
	// DataPointLimit is what reservations go by; nil: there is no such limit.
	DataPointLimit *tier.Limit `json:"daily_data_points,omitempty"`

	Rebuilding bool      `json:"rebuilding"`
	ResetTime  time.Time `json:"reset_time"`
	KeptUntil  time.Time `json:"kept_until"`
}

func readQuota(ctx context.Context, cfg *config.Config, user string, day time.Time) (*shownQuota, error) {
	q := &shownQuota{
		UserID: user, Thresholds: []int{}, Date: day.Format(time.DateOnly),
		ResetTime: day.AddDate(0, 0, 1), KeptUntil: day.AddDate(0, 0, 1).Add(cfg.QuotaLateness),
	}
	if err := q.readCounters(ctx, cfg, day); err != nil {
		return nil, err
	}
	tiers, err := service.Tiers(cfg)
	if err != nil {
		return nil, err
	}
	s, err := readUser(ctx, cfg, user)
	if err != nil {
		return nil, err
	}
	if s == nil { // what such a user uses is counted all the same
		q.Reason, q.Exceeded = httpapi.Refusal(nil), true
		return q, nil
	}
	limit := s.Limits.DailyAPICalls
	q.DataPointLimit = s.Limits.DailyDataPoints
	q.Known, q.CompanyID, q.Tier, q.Status, q.Billing = true, s.CompanyID, s.Tier, s.Status, s.BillingStatus
	q.Reason = httpapi.Refusal(s)
	q.Exceeded = q.Reason != ""
	if s.BillingStatus == "" {
		return q, nil // without a subscription there is no limit
	}
	if q.DailyLimit = &limit; limit == tier.Unlimited {
		return q, nil
	}
	q.Percentage = json.Number(httpapi.PercentText(q.APICalls, int64(limit)))
	q.Exceeded = q.Exceeded || q.APICalls >= int64(limit)
	t, _ := tiers.Tier(s.Tier)
	for _, percent := range t.Thresholds {
		if q.APICalls >= limit.Threshold(percent) {
			q.Thresholds = append(q.Thresholds, percent)
		}
	}
	return q, nil
}

func (q *shownQuota) readCounters(ctx context.Context, cfg *config.Config, day time.Time) error {
	ctx, cancel := context.WithTimeout(ctx, showTimeout)
	defer cancel()
	store, err := service.OpenCounters(ctx, cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	defer func() { _ = store.Close() }() // everything was answered before
	counters, err := store.Counters(ctx, q.UserID, day)
	if err != nil {
		return fmt.Errorf("ask Dragonfly: %w", err)
	}
	// After the counters: a rebuild is announced first, and takes them away then.
	if q.Rebuilding, err = store.Rebuilding(ctx); err != nil {
		return fmt.Errorf("ask Dragonfly: %w", err)
	}
	q.APICalls, q.DataPoints = counters.APICalls, counters.DataPoints
	return nil
}

// readUser returns nil for a user Postgres does not know.
func readUser(ctx context.Context, cfg *config.Config, user string) (*directory.Subscription, error) {
	ctx, cancel := context.WithTimeout(ctx, showTimeout)
	defer cancel()
	store, err := service.OpenPostgres(ctx, cfg, showTimeout, slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, err
	}
	defer store.Close()
	users, err := store.Users(ctx, []string{user})
	if err != nil || len(users) == 0 || users[0].CompanyID == "" { // the last: one who belongs to no company any more
		return nil, err
	}
	return &users[0], nil
}

func (q *shownQuota) table(now time.Time) *table {
	t := &table{}
	t.add("user", q.UserID)
	if q.Known {
		t.add("company", q.CompanyID)
		t.add("tier", orNone(q.Tier))
		t.add("status", q.Status+", subscription "+orNone(q.Billing))
	} else {
		t.add("company", "none: the user is not known")
	}
	t.add("day", q.Date)
	t.add("API calls", strconv.FormatInt(q.APICalls, 10))
	t.add("data points", strconv.FormatInt(q.DataPoints, 10))
	if q.DataPointLimit != nil {
		t.add("data points a day", q.DataPointLimit.String()+", for reservations")
	}
	if q.DailyLimit != nil {
		t.add("daily limit", q.DailyLimit.String())
	}
	if q.Percentage != "" {
		t.add("used", q.Percentage.String()+" %")
		var reached []string
		for _, percent := range slices.Sorted(slices.Values(q.Thresholds)) {
			reached = append(reached, strconv.Itoa(percent)+" %")
		}
		t.add("thresholds reached", orNone(strings.Join(reached, ", ")))
	}
	exceeded := strconv.FormatBool(q.Exceeded)
	if q.Reason != "" {
		exceeded += ", " + q.Reason
	}
	t.add("exceeded", exceeded)
	t.add("day ends", q.ResetTime.Format(time.RFC3339))
	kept := "kept until"
	if now.After(q.KeptUntil) {
		kept = "kept only until"
	}
	t.add(kept, q.KeptUntil.Format(time.RFC3339))
	if q.Rebuilding {
		t.add("rebuilding", "yes: counters were lost and are being recounted, and may be too low")
	}
	return t
}

func orNone(text string) string {
	if text == "" {
		return "none"
	}
	return text
}
