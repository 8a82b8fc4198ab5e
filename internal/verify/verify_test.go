package verify_test

import (
	"testing"

	"tenantflow/internal/verify"
)

func TestRealTrafficIsAccountedForOffsetByOffset(t *testing.T) {
	t.Parallel()
	in, g := consumed(t, 3, usual())
	clean(t, in.verify(t, false), g.Expected())
	// In pieces that cut everywhere, with too little room for the dead letters.
	clean(t, in.verify(t, false, func(c *verify.Config) { c.Stretch, c.Letters = 97, 3 }), g.Expected())
}
