package engine_test

import (
	"testing"

	"go.uber.org/goleak"

	"tenantflow/internal/engine/enginetest"
)

func TestMain(m *testing.M) {
	// Nothing of an engine may be left behind: no goroutine that waits for it, none of a proxy.
	goleak.VerifyTestMain(enginetest.Engines(m))
}
