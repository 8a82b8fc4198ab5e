package directory

import (
	"context"
	"time"
)

// A Membership is a time in which a user belonged to a company, by the times of the events that said so.
type Membership struct {
	CompanyID string    `json:"company_id"`
	Since     time.Time `json:"since"`          // the first moment
	Until     time.Time `json:"until,omitzero"` // the first one in which it was over; zero: it is not

	// When Postgres came to know of the beginning and of the end, by its clock. Zero: before that was kept.
	RecordedAt time.Time `json:"recorded_at,omitzero"`
	EndedAt    time.Time `json:"ended_at,omitzero"`
}

func (m *Membership) holds(at time.Time) bool {
	return !at.Before(m.Since) && (m.Until.IsZero() || at.Before(m.Until))
}

// A Belonging says whose a user was at a time.
type Belonging int

// What can be said of a user, a company and a time.
const (
	// BelongsToNone is also what a user is who was not known then, or is not at all.
	BelongsToNone Belonging = iota
	Belongs
	BelongsElsewhere
)

// BelongedTo reports whether the user belonged to a company at a time, or to another one. What gives the user to the company holds whenever
// it was recorded. That another one has the user holds if it is so by all that is known, and was so by what Postgres had recorded until
// known: an earlier count could say no more. Nil, an unknown user, belongs to none. It knows the user's last 32 memberships.
func (s *Subscription) BelongedTo(company string, at, known time.Time) Belonging {
	if s == nil {
		return BelongsToNone
	}
	now, then := false, false // another one has the user
	for i := range s.Memberships {
		m := &s.Memberships[i]
		holds := m.holds(at)
		held := holds || m.EndedAt.After(known) && !at.Before(m.Since) // its end was not known
		switch {
		case !held:
		case m.CompanyID == company:
			return Belongs
		default:
			now = now || holds
			then = then || !m.RecordedAt.After(known)
		}
	}
	if now && then {
		return BelongsElsewhere
	}
	return BelongsToNone
}

// BelongsSince reports whether the user belongs to a company, and has without a break since a time at the latest: the usual case, and
// cheaper than BelongedTo for each moment since.
func (s *Subscription) BelongsSince(company string, at time.Time) bool {
	if s.CompanyID != company || len(s.Memberships) == 0 {
		return false
	}
	m := &s.Memberships[0]
	return m.CompanyID == company && m.Until.IsZero() && !m.Since.After(at)
}

// former reports whether the user belongs to no company any more, so that only the memberships are known.
func (s *Subscription) former() bool { return s.CompanyID == "" }

// ResolveMembers is Resolve for those who ask whose users were in the past: it also finds those who belong to no company any more. Of
// them only UserID and Memberships are set.
func (d *Directory) ResolveMembers(ctx context.Context, users []string, out []*Subscription) error {
	return d.resolve(ctx, users, out)
}

// AsOf is the time up to which everything that was committed to Postgres is in the answers that begin now: that of the last read of the
// change feed that came to its end. Zero: it was never read.
func (d *Directory) AsOf() time.Time {
	if at := d.lastRead.Load(); at != 0 {
		return d.started.Add(time.Duration(at))
	}
	return time.Time{}
}
