package consumers

import (
	"context"
	"errors"

	"tenantflow/internal/kafka"
	"tenantflow/sinks/postgres"
)

type publisher func(context.Context, []kafka.Result) error

// publishEach publishes what is done, and notes it: together, or, if something of it is larger than its topic takes, each on its own. What is
// too large is kept with a fault, for a person, and keeps nothing else from being published. It returns what is published.
func (c *TenantConfig) publishEach(ctx context.Context, done []postgres.Applied, step func(TenantStep), publish publisher) ([]postgres.Applied, error) {
	err := c.publishAll(ctx, done, step, publish)
	var large *kafka.TooLargeError
	if !errors.As(err, &large) {
		return done, err
	}
	var published []postgres.Applied
	for i := range done {
		err := c.publishAll(ctx, done[i:i+1], step, publish)
		switch {
		case err == nil:
			published = append(published, done[i])
		case errors.As(err, &large):
			if err := c.Store.Unpublishable(ctx, &done[i], large); err != nil {
				return published, err
			}
		default:
			return published, err
		}
	}
	return published, nil
}

func (c *TenantConfig) publishAll(ctx context.Context, done []postgres.Applied, step func(TenantStep), publish publisher) error {
	results := c.results(done, nil)
	if err := c.inOrder(ctx, results, publish); err != nil {
		return err
	}
	step(TenantPublished)
	return c.published(ctx, done, results, publish)
}
