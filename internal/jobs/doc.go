// Package jobs is the schedule: work that is due at the begin of every hour, day, week or month in UTC.
//
//	schedule := jobs.New(jobs.Config{
//		Jobs: []jobs.Job{{Name: events.JobBusinessMetrics, Every: jobs.Hour, Catchup: jobs.OnTime(15 * time.Minute), Run: report}},
//		Store: store, Publish: publish, Owner: "host/1", Logger: log,
//	})
//	err := schedule.Run(ctx) // until ctx ends
//
// A slot is one time a job is due. It goes through these steps, each of which is stored before the next one begins, so that any process can go on
// where another one has died:
//
//	planned    the clock of Postgres is past the slot: its row is there, and the job is planned to it (due)
//	announced  its event, maintenance.<job>_due.v1, is in the log
//	queued     the consumer of the log has read the event (consumers.Jobs)
//	taken      a process has a lease on it, and works (running)
//	ended      what came of it is stored (done)
//	published  its event, maintenance.<job>_done.v1, is in the log, and that is noted
//
// The work is not done by the partition's loop in the consumer. It may take hours, while a partition has to be given up within seconds when
// the group is rebalanced, and its other events must not wait. So the consumer only notes that the event was read, and commits its offset; who
// does the work is decided by the lease, which any process that runs a Schedule can take, and which is moved on while the work lasts. A
// process that dies is noticed when its lease ends, and the slot is run again by another one. That is why a job's Run has to be idempotent.
// The work is not lost in a rebalance, and its process need not own a partition.
//
// Which slots are made up for after an outage is each job's rule ([Catchup]). Up to where a job is planned is stored and never goes back: a
// clock that is set back plans nothing twice. A job that is new to an installation begins with its next slot.
package jobs
