package billing

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"tenantflow/internal/analytics"
	"tenantflow/sinks/postgres"
)

// companiesAtOnce is how many companies are closed before their exports are announced together, and workers how many of them at a time: each asks ClickHouse
// four times, and inserts need the rest of the server.
const (
	companiesAtOnce = 200
	workers         = 4
)

// A Summary says what became of closing a period for every company.
type Summary struct {
	Period       string `json:"billing_period"`
	Companies    int    `json:"companies"`     // looked at
	Closed       int    `json:"closed"`        // by this run
	Before       int    `json:"closed_before"` // by an earlier one
	Nothing      int    `json:"nothing"`       // companies that had ended before the period, of which nothing came since
	Unreconciled int    `json:"unreconciled"`  // of those closed by this run
	Failed       int    `json:"failed"`
	Unannounced  int    `json:"not_announced"` // of those closed by this run: a sweep announces them

	NotClosed []string `json:"not_closed"` // the first of those that failed
}

// notClosedNamed is how many companies that failed a Summary names.
const notClosedNamed = 100

// failed counts a company that could not be closed.
func (s *Summary) failed(company string) {
	s.Failed++
	if len(s.NotClosed) < notClosedNamed {
		s.NotClosed = append(s.NotClosed, company)
	}
}

// CloseAll closes a period for every company that was there in it, and goes on where a killed run has stopped. Companies that had been closed before the
// period have an export only if something came late, in the three months after their end. each, if it is set, is called for every export, also
// those that were closed before; never twice at once.
//
// What fails for one company is counted and does not stop the others: the error is that of the first. Of what stops all of them, as a *NotYetError does or a store
// that is away, because it holds for all, there is no summary.
func (e *Exporter) CloseAll(ctx context.Context, period analytics.Month, each func(*Export) error) (*Summary, error) {
	s := &Summary{Period: period.String(), NotClosed: []string{}}
	var failed error
	for after := ""; ; {
		companies, err := e.cfg.Books.BillingCompanies(ctx, after, period.Start(), (period + 1).Start(), companiesAtOnce)
		if err != nil {
			return nil, err
		}
		if len(companies) == 0 {
			return s, failed
		}
		after = companies[len(companies)-1].CompanyID
		first, err := e.closeSome(ctx, period, companies, each, s)
		if failed == nil {
			failed = first
		}
		if err != nil {
			return nil, errors.Join(ctx.Err(), err)
		}
	}
}

// closeSome closes a period for some companies. failed is what went wrong with the first of those that could not be closed; err stops everything.
func (e *Exporter) closeSome(ctx context.Context, period analytics.Month, companies []postgres.BillingCompany, each func(*Export) error, s *Summary) (failed, err error) {
	var mu sync.Mutex
	var fresh []postgres.BillingExport
	work, working := errgroup.WithContext(ctx)
	work.SetLimit(workers)
	inARow := 0 // companies that failed, one after the other
	for _, c := range companies {
		if c.Closed && each == nil {
			mu.Lock()
			s.Companies++
			s.Before++
			mu.Unlock()
			continue
		}
		work.Go(func() error {
			export, err := e.close(working, c.CompanyID, period, c.Ended)
			mu.Lock()
			defer mu.Unlock()
			s.Companies++
			var notYet *NotYetError
			switch {
			case errors.As(err, &notYet), working.Err() != nil:
				return err
			case err != nil:
				if inARow++; inARow%failuresInARow == 1 {
					if away := e.reach(working); away != nil {
						return fmt.Errorf("close period %s: %w", period, away)
					}
				}
				s.failed(c.CompanyID)
				e.cfg.Logger.WarnContext(ctx, "a company's billing period can't be closed", slog.String("company_id", c.CompanyID), slog.Any("error", err))
				if failed == nil {
					failed = fmt.Errorf("close period %s of company %s: %w", period, c.CompanyID, err)
				}
				return nil
			}
			inARow = 0
			switch {
			case export == nil:
				s.Nothing++
				return nil
			case c.Closed:
				s.Before++
			default:
				s.Closed++
				if !export.Reconciled {
					s.Unreconciled++
				}
				listed := *export
				listed.ContentJSON, listed.ContentCSV = nil, nil
				fresh = append(fresh, listed)
			}
			if each != nil {
				return each(stored(export))
			}
			return nil
		})
	}
	err = work.Wait()
	if s.Unannounced > 0 || !e.announceSoon(ctx, fresh) { // one wait is enough: the others are left to the sweep as well
		s.Unannounced += len(fresh)
	}
	return failed, err
}

// failuresInARow is how many more companies fail one after the other before the stores are asked again whether it is theirs.
const failuresInARow = 10

// reach says which store does not answer; nil: all do.
func (e *Exporter) reach(ctx context.Context) error {
	if _, err := e.cfg.Books.Now(ctx); err != nil {
		return err
	}
	if err := e.cfg.Rows.Ping(ctx); err != nil {
		return err
	}
	_, err := e.cfg.Log.Look(ctx, time.Now())
	return err
}

// CloseMonth is the work of the monthly job billing_export: it closes the month before its slot, the beginning of a month, for every company. Run again, it
// goes on. It is a *NotYetError while the grace period lasts or events are behind, also where there is no company yet: its registration may be one of them.
func (e *Exporter) CloseMonth(ctx context.Context, slot time.Time) (*Summary, error) {
	e.TryAnnounce(ctx)
	period := analytics.MonthOf(slot) - 1
	now, err := e.cfg.Books.Now(ctx)
	if err != nil {
		return nil, err
	}
	if err := e.over(period, now); err != nil {
		return nil, err
	}
	at, err := e.cfg.Log.Look(ctx, time.Time{})
	if err != nil {
		return nil, err
	}
	if err := at.reaches(period); err != nil {
		return nil, err
	}
	return e.CloseAll(ctx, period, nil)
}
