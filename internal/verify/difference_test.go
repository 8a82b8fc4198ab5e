package verify_test

import (
	"testing"

	"tenantflow/internal/model"
)

// TestDifferences spoils what one run of the service has stored, each time another copy of it in another way.
func TestDifferences(t *testing.T) {
	t.Parallel()
	in, g := consumed(t, 2, usual())
	for name, test := range map[string]func(*testing.T, *installation, *model.Generator){
		"a copy of a row is doubled and repair removes it with its share of the totals":     copiedRow,
		"copies that are equal in everything are repaired to one":                           equalCopies,
		"of three copies that are equal in everything another repair removes one meanwhile": equalCopiesFewer,
		"many doubles are removed at once":                                                  manyDoubles,
		"a row under way is not taken for a later copy":                                     rowUnderWay,
		"a row at the place of another event is foreign":                                    foreignRow,
		"a row with other content than its event is altered":                                alteredRow,
		"rows behind the end of the log are found":                                          rowsBehind,
		"a group that has committed nothing proves nothing":                                 nothingCommitted,
		"every tampered total is found and repaired, and a second repair changes nothing":   tamperedTotals,
		"several repairs at once correct once":                                              twoRepairs,
		"a maximum that is too small is raised":                                             smallMaximum,
		"a key with a row under way is judged":                                              busyKey,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, in.clone(t), g)
		})
	}
}
