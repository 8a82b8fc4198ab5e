package postgres

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"tenantflow/internal/directory"
	"tenantflow/internal/tier"
)

var (
	//go:embed queries/users.sql
	usersSQL string
	//go:embed queries/users_former.sql
	formerSQL string
	//go:embed queries/company.sql
	companySQL string
	//go:embed queries/members.sql
	membersSQL string
	//go:embed queries/users_active.sql
	usersActiveSQL string
)

var _ directory.Loader = (*Store)(nil)

// Users returns those of the users that are known, in any order. Quota and CachedAt are left empty. Of one who belongs to no
// company any more, only UserID, Memberships and Origin are set.
//
// A user whose company has no subscription has an empty tier, an empty billing status and limits of zero. The billing
// status of a company that is closed is closed, whatever its subscription says.
func (s *Store) Users(ctx context.Context, ids []string) ([]directory.Subscription, error) {
	if len(ids) == 0 {
		return nil, nil
	}
	known, err := s.members(ctx, ids, nil)
	if err != nil {
		return nil, err
	}
	there := make(map[string]struct{}, len(known))
	for i := range known {
		there[known[i].UserID] = struct{}{}
	}
	missing := slices.DeleteFunc(slices.Clone(ids), func(id string) bool { _, ok := there[id]; return ok })
	if len(missing) == 0 {
		return known, nil
	}
	slices.Sort(missing)
	former, err := collect(ctx, s, "look up whose users were", readFormer, formerSQL, slices.Compact(missing))
	return append(known, former...), err
}

// UserOf returns a user who belongs to one of the companies. For any other, known or not, the query does the same work: it finds no
// row. The error is then directory.ErrUnknown.
func (s *Store) UserOf(ctx context.Context, id string, companies []string) (directory.Subscription, error) {
	found, err := s.members(ctx, []string{id}, append([]string{}, companies...)) // never null, which is any company
	if err == nil && len(found) == 0 {
		err = fmt.Errorf("look user %q up in Postgres: %w", id, directory.ErrUnknown)
	}
	if err != nil {
		return directory.Subscription{}, err
	}
	return found[0], nil
}

// members looks up users who belong to one of the companies; nil: to any.
func (s *Store) members(ctx context.Context, ids, companies []string) ([]directory.Subscription, error) {
	limits := limitsReader{}
	return collect(ctx, s, "look users up", func(row pgx.CollectableRow) (directory.Subscription, error) {
		r, err := pgx.RowToStructByName[userRow](row)
		if err != nil {
			return r.Subscription, err
		}
		if r.NotInCatalogue {
			s.sayUnlisted(r.Tier, r.CompanyID)
		}
		r.Memberships = r.list()
		r.Subscription.Limits, err = limits.read(r.Limits)
		return r.Subscription, err
	}, usersSQL, ids, companies)
}

// A userRow is a row of users.sql.
type userRow struct {
	directory.Subscription
	memberships
	Limits         []byte // JSON; nil: the company has no subscription
	NotInCatalogue bool
}

// A formerRow is a row of users_former.sql.
type formerRow struct {
	UserID, Origin string
	memberships
}

func readFormer(row pgx.CollectableRow) (directory.Subscription, error) {
	r, err := pgx.RowToStructByName[formerRow](row)
	return directory.Subscription{UserID: r.UserID, Origin: r.Origin, Memberships: r.list()}, err
}

// memberships are a user's as columns.
type memberships struct {
	Companies                  []string
	Since                      []time.Time
	Until, RecordedAt, EndedAt []*time.Time
}

func (m memberships) list() []directory.Membership {
	utc := func(t *time.Time) time.Time {
		if t == nil {
			return time.Time{}
		}
		return t.UTC()
	}
	all := make([]directory.Membership, len(m.Companies))
	for i := range all {
		all[i] = directory.Membership{CompanyID: m.Companies[i], Since: m.Since[i].UTC(), Until: utc(m.Until[i]),
			RecordedAt: utc(m.RecordedAt[i]), EndedAt: utc(m.EndedAt[i])}
	}
	return all
}

// A companyRow is the row of company.sql.
type companyRow struct {
	directory.Company
	directory.Period
	Limits         []byte // JSON; nil: the company has no subscription
	NotInCatalogue bool
}

// Company returns what is known of a company. An unknown one is directory.ErrUnknown. Without a subscription, tier and
// status are empty and the limits zero.
func (s *Store) Company(ctx context.Context, id string) (directory.Company, error) {
	r, err := collectOne(ctx, s, "look a company up", pgx.RowToStructByName[companyRow], companySQL, id)
	if errors.Is(err, pgx.ErrNoRows) {
		return directory.Company{}, fmt.Errorf("look company %q up in Postgres: %w", id, directory.ErrUnknown)
	}
	c := r.Company
	c.Period = r.Period
	if err == nil {
		if c.Limits, err = (limitsReader{}).read(r.Limits); err != nil {
			err = s.explain("look a company up", err)
		}
	}
	if err != nil {
		return directory.Company{}, err
	}
	if r.NotInCatalogue {
		s.sayUnlisted(c.Tier, id)
	}
	return c, nil
}

// Members returns up to limit users of a company, those that come after the given one, in the order of their ids.
func (s *Store) Members(ctx context.Context, company, after string, limit int) ([]string, error) {
	return collect(ctx, s, "list the users of a company", pgx.RowTo[string], membersSQL, company, after, limit)
}

// ActiveUsers returns those of some users who belong to a company and are not suspended, in any order.
func (s *Store) ActiveUsers(ctx context.Context, company string, among []string) ([]string, error) {
	return collect(ctx, s, "list the active users of a company", pgx.RowTo[string], usersActiveSQL, company, among)
}

// unlistedAgain is how long a tier that is not in the catalogue is not mentioned again.
const unlistedAgain = time.Hour

// sayUnlisted logs that a tier is not in the catalogue, once an hour for each.
func (s *Store) sayUnlisted(name, company string) {
	now := time.Now()
	before, said := s.unlisted.LoadOrStore(name, now)
	if said {
		last, ok := before.(time.Time)
		said = !ok || now.Sub(last) < unlistedAgain || !s.unlisted.CompareAndSwap(name, before, now)
	}
	if !said {
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
