package service

import (
	"context"

	"tenantflow/internal/config"
)

// PingDragonfly asks Dragonfly as the operations page does.
func PingDragonfly(ctx context.Context, cfg *config.Config) error {
	b := &board{}
	defer b.close()
	ping, err := b.pingDragonfly(cfg)
	if err != nil {
		return err
	}
	return ping(ctx)
}
