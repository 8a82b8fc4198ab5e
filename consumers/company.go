package consumers

import (
	"context"

	"tenantflow/internal/kafka"
)

// Company consumes company events: each is applied to the company's row, schema, users and configuration in one transaction of
// Postgres, and what has happened is published. See postgres.Tenants for what makes it happen once.
type Company struct{ config TenantConfig }

// NewCompany returns the handler of company events.
func NewCompany(config TenantConfig) *Company {
	config.withDefaults()
	return &Company{config: config}
}

// Open begins a partition.
func (c *Company) Open(ctx context.Context, p *kafka.Partition) (kafka.BatchPartition, error) {
	return openTenant(ctx, p, c.config, companyEffect)
}
