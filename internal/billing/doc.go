// Package billing exports what a company is billed for: per company and calendar month (UTC) the charges and payments of the books and the
// usage rows of ClickHouse, to the unit.
//
// A period is open until it ends, then a draft, and closed once its grace period is over and usage and subscription events are stored up to
// its end ([Exporter.Close]). A closed export is stored with its bytes and never changes. What comes to be known of its period afterwards,
// usage that is late, voided, lost or published again, is a correction in the company's next export.
//
// Corrections are differences: what the rows of a closed period add up to now, less what all exports so far have reported of it, kept in
// the table billing_reported. So the sum over all exports of a period is what its rows add up to, in whatever order and however often events arrive.
// Positions in the log only tell why ([Cause]).
//
// The order within [Exporter.Close] keeps that true: first the positions up to which usage is stored are read, then the rows before them,
// and then, under the lock of the company, the books; what is known of earlier exports must not have moved meanwhile, else all of it is done again. Bytes,
// the ledger and the items are stored in one transaction, with the mark that the export is to be announced. A crash before it leaves nothing, and one behind it leaves
// the announcement to [Exporter.Announce].
//
//   - document.go has what an export says, build.go makes it of facts, csv.go writes it as a table
//   - position.go says how far the stores have come, usage.go reads rows, exporter.go puts all together
//   - all.go closes a month of every company, manifest.go writes the files of it
package billing
