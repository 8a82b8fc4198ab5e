package kafka_test

import (
	"testing"

	"tenantflow/internal/engine/enginetest"
)

func TestMain(m *testing.M) { enginetest.Main(m) }
