package directory

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// documents is what is cached of one company.
type documents struct {
	config *CompanyConfig
	period *BillingPeriod
}

// CompanyConfig returns a company's configuration. The error is ErrUnknown if there is no such company; any other one is
// transient.
func (d *Directory) CompanyConfig(ctx context.Context, company string) (*CompanyConfig, error) {
	return lookUp(ctx, d, company, kind[CompanyConfig]{
		name: "configuration", memory: d.configs, left: (*CompanyConfig).Left,
		cached:  func(ctx context.Context) (*CompanyConfig, error) { return d.config.Cache.CompanyConfig(ctx, company) },
		vintage: func(c *CompanyConfig) vintage { return vintage{c.Version, c.CachedAt, c.Origin} },
		of:      func(o documents) *CompanyConfig { return o.config },
	})
}

// BillingPeriod returns the billing period a company is in. Errors are those of CompanyConfig.
func (d *Directory) BillingPeriod(ctx context.Context, company string) (*BillingPeriod, error) {
	return lookUp(ctx, d, company, kind[BillingPeriod]{
		name: "billing period", memory: d.periods, left: (*BillingPeriod).Left,
		cached:  func(ctx context.Context) (*BillingPeriod, error) { return d.config.Cache.BillingPeriod(ctx, company) },
		vintage: func(p *BillingPeriod) vintage { return vintage{p.Version, p.CachedAt, p.Origin} },
		of:      func(o documents) *BillingPeriod { return o.period },
	})
}

// A kind is one of the documents of a company.
type kind[T any] struct {
	name    string
	memory  *memory[T]
	left    func(*T) time.Duration
	cached  func(ctx context.Context) (*T, error)
	vintage func(*T) vintage
	of      func(documents) *T
}

func lookUp[T any](ctx context.Context, d *Directory, company string, k kind[T]) (*T, error) {
	now := d.now()
	if e := usable(d, k.memory.get(company), now); e != nil {
		d.metrics.process.Inc()
		return e.value, nil
	}
	if d.isUnknown(":"+company, "", company, now) {
		d.metrics.process.Inc()
		return nil, fmt.Errorf("company %q: %w", company, ErrUnknown)
	}
	// Shared by all who ask meanwhile, so it must not end with the first of them.
	loaded := d.companyFlights.DoChan(k.name+company, func() (any, error) {
		if !d.begin() {
			return nil, errClosed
		}
		defer d.loads.Done()
		return load(d, company, k)
	})
	select {
	case result := <-loaded:
		if result.Err != nil {
			return nil, fmt.Errorf("look up the %s of company %q: %w", k.name, company, result.Err)
		}
		return result.Val.(*T), nil
	case <-ctx.Done():
		return nil, fmt.Errorf("look up the %s of company %q: %w", k.name, company, context.Cause(ctx))
	}
}

// begin counts a load that Close has to wait for, and returns false if it is too late for one.
func (d *Directory) begin() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return false
	}
	d.loads.Add(1)
	return true
}

// load is the counterpart of Directory.load for a document of a company.
func load[T any](d *Directory, company string, k kind[T]) (*T, error) {
	epoch := d.known.epoch.Load()
	var doubtful *T
	err := d.askCache(d.ctx, func(ctx context.Context) (err error) {
		doubtful, err = k.cached(ctx)
		return err
	})
	if err == nil && doubtful != nil {
		switch d.known.judge(company, "", k.vintage(doubtful)) {
		case current:
			remember(d, k.memory, company, doubtful, epoch, min(d.config.Life, k.left(doubtful)))
			d.metrics.lookups.WithLabelValues(byDragonfly).Inc()
			return doubtful, nil
		case outdated:
			doubtful = nil
		case unsure:
		}
	}
	loaded, err := d.loadCompany(company)
	switch {
	case err == nil:
		return k.of(loaded), nil
	case errors.Is(err, ErrUnknown) || doubtful == nil:
		return nil, err
	default: // not known to be old, and better than nothing
		remember(d, k.memory, company, doubtful, epoch, doubtfulLife)
		d.metrics.lookups.WithLabelValues(byDragonfly).Inc()
		return doubtful, nil
	}
}

func remember[T any](d *Directory, m *memory[T], company string, value *T, epoch uint64, life time.Duration) {
	e := &entry[T]{value: value, company: company, expires: d.now() + int64(life)}
	e.seen.Store(epoch)
	m.put(company, e)
}

// loadCompany asks Postgres for a company, keeps what it says, and loads it again if it has changed meanwhile.
func (d *Directory) loadCompany(id string) (documents, error) {
	select {
	case d.companyLoads <- struct{}{}:
		defer func() { <-d.companyLoads }()
	case <-d.ctx.Done():
		return documents{}, errClosed
	}
	for try := 0; ; try++ {
		epoch, began := d.known.epoch.Load(), time.Now().UTC()
		var c Company
		err := d.askPostgres(d.ctx, func(ctx context.Context) (err error) {
			c, err = d.config.Loader.Company(ctx, id)
			return err
		})
		unknown := errors.Is(err, ErrUnknown)
		if err != nil && !unknown {
			d.metrics.lookups.WithLabelValues(byNone).Inc()
			return documents{}, err
		}
		var docs documents
		stored := true
		newest := d.known.newestOf(id, "")
		overtaken := d.known.changedSince(id, "", epoch) || !unknown && !d.known.from(c.Origin) // after newest, as in Directory.load
		if !unknown {
			if overtaken {
				newest = 0
			}
			docs.config, docs.period, err = c.documents(max(c.Version, newest), began)
			if err != nil {
				return documents{}, err
			}
		}
		if !unknown && !overtaken {
			// Without Dragonfly nothing is refused.
			_ = d.askCache(d.ctx, func(ctx context.Context) error {
				ok, err := d.config.Cache.PutCompany(ctx, docs.config, docs.period)
				stored = ok || err != nil
				return err
			})
		}
		doubt := !stored || overtaken || d.known.changedSince(id, "", epoch)
		if doubt && try < reloads {
			d.metrics.reloads.Inc()
			continue
		}
		d.metrics.lookups.WithLabelValues(byPostgres).Inc()
		if unknown {
			d.rememberUnknown(":"+id, "", id, epoch)
			return documents{}, err
		}
		if !stored { // as in Directory.overrule
			_ = d.askCache(d.ctx, func(ctx context.Context) error {
				return d.config.Cache.Invalidate(ctx, nil, map[string]int64{id: anyVersion}, d.known.source())
			})
		}
		if !doubt {
			remember(d, d.configs, id, docs.config, epoch, min(d.config.Life, docs.config.Left()))
			remember(d, d.periods, id, docs.period, epoch, min(d.config.Life, docs.period.Left()))
		}
		return docs, nil
	}
}
