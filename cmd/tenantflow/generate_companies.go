package main

import (
	"time"

	"github.com/spf13/cobra"

	"tenantflow/events"
	"tenantflow/internal/generate"
	"tenantflow/internal/ledger"
	"tenantflow/internal/tenant"
	"tenantflow/internal/tier"
)

// streamParts are what --part may be, with the topic of each.
var streamParts = map[string]string{"all": "", "companies": events.TopicCompany, "subscriptions": events.TopicSubscription} //nolint:gochecknoglobals // a constant table

func newGenerateCompaniesCommand() *cobra.Command {
	var config generate.Companies
	var part, now string
	cmd := &cobra.Command{
		Use:   "companies --count N",
		Short: "Write company and subscription events as lines of JSON, one CloudEvent each, its key as the extension partitionkey",
		Long: `Companies writes CloudEvents to standard output, as "produce" reads them: companies register, change their
configuration, change users, change their tier, pay or do not, and close. Some events are refused by a rule, some are sent twice,
and some of the subscription come before the registration of their company: the end is the same in every order.

The events are those of two topics. --part picks one of them; the same flags make both parts of one stream. They depend on nothing
but the flags; only the default of --now depends on the clock.`,
		Example: `  now=$(date -u +%FT%TZ)
  tenantflow generate companies --count 100 --now $now --part companies     | tenantflow produce --topic company.events --file -
  tenantflow generate companies --count 100 --now $now --part subscriptions | tenantflow produce --topic subscription.events --file -`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			topic, ok := streamParts[part]
			if !ok {
				return invalid("--part %s is not all, companies or subscriptions", part)
			}
			config.Now = time.Now()
			if now != "" {
				at, err := time.Parse(time.RFC3339, now)
				if err != nil {
					return invalid("--now %s is no RFC 3339 timestamp like 2026-11-01T00:00:00Z", now)
				}
				config.Now = at
			}
			// 0 means none on the command line, and the default in a Config.
			for _, share := range []*float64{&config.Rejected, &config.Resends} {
				if *share == 0 {
					*share = -1
				}
			}
			tiers := tier.Default()
			stream, err := generate.NewCompanies(config, ledger.New(tenant.New(tenant.Config{Catalogue: tiers}), tiers))
			if err != nil {
				return invalid("%w", err)
			}
			return writeLines(cmd, func(b []byte) ([]byte, bool) { return stream.AppendLine(b, topic) })
		},
	}
	f := cmd.Flags()
	f.IntVar(&config.Companies, "count", 20, "number of companies that register")
	f.IntVar(&config.Events, "events", 0, "number of events, registrations included; resends come on top (default: 20 for each company)")
	f.Uint64Var(&config.Seed, "seed", 1, "which of the possible streams")
	f.StringVar(&config.Prefix, "prefix", "", "what company, user and payment ids begin with")
	f.StringVar(&part, "part", "all", "which of the two topics: companies, subscriptions or all; produce takes one at a time")
	f.StringVar(&now, "now", "", "when the stream ends, RFC 3339 (default: the current time)")
	f.Float64Var(&config.Rejected, "rejected", 0.2, "share of events that a rule refuses, 0 to 1")
	f.Float64Var(&config.Resends, "resends", 0.05, "share of events that are sent twice")
	f.Float64Var(&config.Conflicts, "conflicts", 0, "share of events whose identity comes again with other data")
	f.Float64Var(&config.Lapsed, "lapsed", 0, "share of companies whose period has ended, so that they expire at once")
	f.IntVar(&config.Unknown, "unknown", 0, "number of companies that have events and never register")
	return cmd
}
