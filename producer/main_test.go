package producer_test

import (
	"testing"

	"go.uber.org/goleak"

	"tenantflow/internal/engine/enginetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(enginetest.Engines(m)) }
