package postgres

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"tenantflow/internal/directory"
	"tenantflow/internal/tier"
)

var (
	//go:embed users.sql
	usersSQL string
	//go:embed company.sql
	companySQL string
	//go:embed members.sql
	membersSQL string
)

var _ directory.Loader = (*Store)(nil)

// Users returns those of the users that are known, in any order, in one query. Quota and CachedAt are left empty.
//
// A user whose company has no subscription has an empty tier, an empty billing status and limits of zero. The billing
// status of a company that is closed is closed, whatever its subscription says.
func (s *Store) Users(ctx context.Context, ids []string) ([]directory.Subscription, error) {
	if len(ids) == 0 {
		return nil, nil
	}
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	rows, err := s.pool.Query(ctx, usersSQL, ids)
	if err != nil {
		return nil, explain("look users up", err)
	}
	limits := limitsReader{}
	known, err := pgx.AppendRows(make([]directory.Subscription, 0, len(ids)), rows, func(row pgx.CollectableRow) (directory.Subscription, error) {
		var u directory.Subscription
		var text []byte
		var notInCatalogue bool
		err := row.Scan(&u.UserID, &u.CompanyID, &u.Email, &u.Status, &u.StartDate, &u.EndDate, &u.CreatedAt, &u.UpdatedAt, &u.LastActivity,
			&u.Tier, &u.BillingStatus, &text, &notInCatalogue, &u.Version)
		if err != nil {
			return u, err
		}
		if notInCatalogue {
			s.sayUnlisted(u.Tier, u.CompanyID)
		}
		u.Limits, err = limits.read(text)
		return u, err
	})
	if err != nil {
		return nil, explain("look users up", err)
	}
	return known, nil
}

// Company returns what is known of a company. An unknown one is directory.ErrUnknown. Without a subscription, tier and
// status are empty and the limits zero.
func (s *Store) Company(ctx context.Context, id string) (directory.Company, error) {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	var c directory.Company
	var text []byte
	var notInCatalogue bool
	err := s.pool.QueryRow(ctx, companySQL, id).Scan(&c.CompanyID, &c.BillingEmail, &c.Tier, &text, &c.SupportLevel, &c.Config,
		&c.Period.Start, &c.Period.End, &c.Period.Status, &notInCatalogue, &c.Version)
	if errors.Is(err, pgx.ErrNoRows) {
		return c, fmt.Errorf("look company %q up in Postgres: %w", id, directory.ErrUnknown)
	}
	if err == nil {
		c.Limits, err = limitsReader{}.read(text)
	}
	if err != nil {
		return directory.Company{}, explain("look a company up", err)
	}
	if notInCatalogue {
		s.sayUnlisted(c.Tier, id)
	}
	return c, nil
}

// Members returns up to limit users of a company, those that come after the given one, in the order of their ids.
func (s *Store) Members(ctx context.Context, company, after string, limit int) ([]string, error) {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	rows, err := s.pool.Query(ctx, membersSQL, company, after, limit)
	if err != nil {
		return nil, explain("list the users of a company", err)
	}
	users, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, explain("list the users of a company", err)
	}
	return users, nil
}

// sayUnlisted logs once that a tier is not in the catalogue.
func (s *Store) sayUnlisted(name, company string) {
	if _, said := s.unlisted.LoadOrStore(name, true); !said {
		s.log.Warn("a subscription's tier is not in the catalogue; without limits of its own it is treated as free",
			"tier", name, "company_id", company)
	}
}

// A limitsReader reads limits, each text once: the users of a company have the same, and most companies too.
type limitsReader map[string]tier.Limits

func (r limitsReader) read(text []byte) (tier.Limits, error) {
	if known, ok := r[string(text)]; ok {
		return known, nil
	}
	limits := tier.Limits{Features: []string{}}
	if len(text) > 0 {
		if err := json.Unmarshal(text, &limits); err != nil {
			return limits, fmt.Errorf("read the limits %s: %w", text, err)
		}
	}
	r[string(text)] = limits
	return limits, nil
}
