package consumers

import (
	"context"
	"time"

	"tenantflow/internal/kafka"
)

// Company consumes company events: each is applied to the company's row, schema, users and configuration in one transaction of
// Postgres, and what has happened is published. See postgres.Tenants for what makes it happen once. The end of an override by the clock
// enters through the topic, as what is due to a subscription does through its own.
type Company struct{ config TenantConfig }

// NewCompany returns the handler of company events.
func NewCompany(config TenantConfig) *Company {
	config.withDefaults()
	return &Company{config: config}
}

// Open begins a partition.
func (c *Company) Open(ctx context.Context, p *kafka.Partition) (kafka.BatchPartition, error) {
	opened, err := openTenant(ctx, p, c.config, companyEffect)
	if err != nil {
		return nil, err
	}
	opened.due = &dueWatch{looked: time.Now(), busy: overrideWhileBusy, find: c.config.Store.CompanyDue}
	return opened, nil
}
