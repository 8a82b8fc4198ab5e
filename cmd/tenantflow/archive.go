package main

import (
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"

	"tenantflow/events"
	"tenantflow/internal/archive"
	"tenantflow/internal/config"
	"tenantflow/internal/kafka"
)

// archiveFlags are the flags of archive.
type archiveFlags struct {
	topic, dir, from, to             string
	withAddresses, acceptGap, follow bool
}

func newArchiveCommand(a *app) *cobra.Command {
	var f archiveFlags
	cmd := &cobra.Command{
		Use:   "archive [--topic T] [--dir D]",
		Short: "Copy a topic into compressed files that outlive its retention; replay --from-archive reads them",
		Long: `Archive copies what a topic holds, and the archive does not hold yet, into compressed files with checksums and a manifest,
below --dir in a directory named like the topic. It may be stopped or killed at any moment: the next run continues, and
the files end up the same. The part jobs of the service does this every TENANTFLOW_ARCHIVE_INTERVAL if TENANTFLOW_ARCHIVE_DIR
is set; this command is for other directories and for a first run that takes long.

The archive holds records as they are: key, value and headers byte for byte, partition, offset and time. Events of
usage.events hold ids of companies and users, and no addresses. Other topics hold names and e-mail addresses, which an
erasure does not reach in an archive: they need --with-addresses.

It refuses, and changes nothing:
  - a topic that is not the one that was archived: deleted and created again, cut, or of another cluster;
  - a gap: retention has deleted records before they were archived. --accept-gap goes on, and the manifest names them;
  - an archive that another process writes at the moment, or that is damaged.

Exit codes: 0 archived; 1 refused or failed; 2 the command line or the configuration is wrong. docs/archive.md has the rest.`,
		Example: `  tenantflow archive --dir /var/lib/tenantflow/archive
  tenantflow archive --from 2026-11-01T00:00:00Z --to 2026-12-01T00:00:00Z --dir /mnt/november
  tenantflow archive verify --dir /var/lib/tenantflow/archive`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.archive(cmd, f) },
	}
	flags := cmd.PersistentFlags()
	flags.StringVar(&f.topic, "topic", events.TopicUsage, "topic, without the configured prefix")
	flags.StringVar(&f.dir, "dir", "", "directory of the archives (default: TENANTFLOW_ARCHIVE_DIR)")
	flags = cmd.Flags()
	flags.StringVar(&f.from, "from", "", "begin a new archive at the first record that is not older (RFC 3339; default: at the beginning of the log)")
	flags.StringVar(&f.to, "to", "", "end before the first record that is not older (RFC 3339; default: at the end of the log)")
	flags.BoolVar(&f.withAddresses, "with-addresses", false, "archive a topic that holds names and e-mail addresses")
	flags.BoolVar(&f.acceptGap, "accept-gap", false, "go on where retention has deleted records that were not archived")
	flags.BoolVar(&f.follow, "follow", false, "go on until SIGTERM, every TENANTFLOW_ARCHIVE_INTERVAL")
	cmd.AddCommand(newArchiveVerifyCommand(a, &f))
	return cmd
}

func (a *app) archive(cmd *cobra.Command, f archiveFlags) error {
	cfg, err := a.config(config.Kafka)
	if err != nil {
		return err
	}
	run, err := f.config(cfg)
	if err != nil {
		return err
	}
	client, done, err := cfg.KafkaClient()
	if err != nil {
		return err
	}
	defer done()
	run.Client, run.Logger = client, a.logger(cfg, cmd.ErrOrStderr())
	if f.follow {
		return archive.Keep(cmd.Context(), archive.Keeping{Config: run, Interval: cfg.ArchiveInterval, Metrics: archive.NewMetrics(prometheus.NewRegistry())})
	}
	shown := newProgress(cmd.ErrOrStderr(), "archive")
	var last archive.Progress
	run.Progress = func(p archive.Progress) {
		last = p
		shown.update(archiveNumbers(p, time.Since(shown.start))...)
	}
	report, err := archive.Run(cmd.Context(), run)
	switch {
	case cmd.Context().Err() != nil:
		return fmt.Errorf("stopped; what was archived of %s stays, and the next run continues", run.Topic)
	case kafka.NoTopic(err):
		return fmt.Errorf(`topic %s does not exist; run "tenantflow migrate"`, run.Topic)
	case err != nil:
		return err
	}
	if shown.terminal || time.Since(shown.start) > shown.every {
		last.Done, last.Records, last.Bytes = last.Total, report.Records, report.Bytes
		shown.done(archiveNumbers(last, time.Since(shown.start))...)
	}
	return a.show(cmd.OutOrStdout(), report, func() *table { return archiveTable(report.Partitions, true) })
}

// config makes the archiver's configuration of the flags. Its errors are those of a wrong command line.
func (f *archiveFlags) config(cfg *config.Config) (archive.Config, error) {
	name, root, err := f.place(cfg)
	if err != nil {
		return archive.Config{}, err
	}
	if name != events.TopicUsage && !f.withAddresses {
		return archive.Config{}, invalid("--topic %s: its events hold names and e-mail addresses, and an archive is not reached by an erasure. "+
			"If they are to be archived all the same, say --with-addresses, and keep the archive no longer than the law allows", name)
	}
	run := archive.Config{Topic: cfg.TopicPrefix + name, Root: root, AcceptGap: f.acceptGap}
	for _, t := range []struct {
		flag, text string
		at         *time.Time
	}{{"--from", f.from, &run.From}, {"--to", f.to, &run.To}} {
		if t.text == "" {
			continue
		}
		if *t.at, err = time.Parse(time.RFC3339, t.text); err != nil {
			return archive.Config{}, invalid("%s %s: write a time like 2026-11-01T00:00:00Z", t.flag, t.text)
		}
	}
	if !run.From.IsZero() && !run.To.IsZero() && !run.From.Before(run.To) {
		return archive.Config{}, invalid("--from %s is not before --to %s", f.from, f.to)
	}
	if f.follow && !run.To.IsZero() {
		return archive.Config{}, invalid("--follow never ends, and --to is an end; give one of them")
	}
	return run, nil
}

// place is the topic, without its prefix, and the directory of the archives.
func (f *archiveFlags) place(cfg *config.Config) (topic, root string, err error) {
	if topic, err = topicNamed(f.topic, cfg.TopicPrefix); err != nil {
		return "", "", err
	}
	if root = f.dir; root == "" {
		root = cfg.ArchiveDir
	}
	if root == "" {
		return "", "", invalid("--dir is missing, and TENANTFLOW_ARCHIVE_DIR is not set")
	}
	return topic, root, nil
}

// archiveNumbers are how far a run is: the time left is by the rate so far.
func archiveNumbers(p archive.Progress, took time.Duration) []slog.Attr {
	numbers := []slog.Attr{slog.Int64("records", p.Records), slog.Int64("bytes", p.Bytes)}
	if p.Total > 0 {
		numbers = append(numbers, slog.String("share", fmt.Sprintf("%.1f%%", 100*float64(p.Done)/float64(p.Total))))
	}
	if s := took.Seconds(); s > 0 {
		numbers = append(numbers, slog.Int64("per_second", int64(float64(p.Records)/s)))
	}
	if p.Done > 0 && p.Total > p.Done {
		left := time.Duration(float64(took) / float64(p.Done) * float64(p.Total-p.Done))
		numbers = append(numbers, slog.String("left", left.Round(time.Second).String()))
	}
	return numbers
}

func archiveTable(partitions []archive.PartitionReport, run bool) *table {
	t := &table{head: []string{"partition", "from", "to", "records", "too large", "missing", "files", "bytes"}}
	if run {
		t.head = append(t.head, "added")
	}
	var all archive.PartitionReport
	row := func(first, from, to string, p archive.PartitionReport) {
		cells := []string{first, from, to, count(p.Records), count(p.TooLarge), count(p.Missing), count(int64(p.Files)), count(p.Bytes)}
		if run {
			cells = append(cells, count(p.Added))
		}
		t.add(cells...)
	}
	for _, p := range partitions {
		row(count(int64(p.Partition)), count(p.From), count(p.To), p)
		all.Records += p.Records
		all.TooLarge += p.TooLarge
		all.Missing += p.Missing
		all.Files += p.Files
		all.Bytes += p.Bytes
		all.Added += p.Added
	}
	row("all", "", "", all)
	return t
}

func newArchiveVerifyCommand(a *app, f *archiveFlags) *cobra.Command {
	return &cobra.Command{
		Use:   "verify [--topic T] [--dir D]",
		Short: "Read an archive whole and compare it with its checksums",
		Long: `Verify reads the archive of a topic: the manifest, the size and the SHA-256 of every file, the checksum of every block, and
every record in it. It names each file that is not what was written, and what is missing. It needs no broker, and may
run while the archive is written.

Exit codes: 0 everything is as it was written; 1 something is not; 2 the command line or the configuration is wrong.`,
		Example: `  tenantflow archive verify
  tenantflow archive verify --dir /mnt/november -o json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.archiveVerify(cmd, f) },
	}
}

func (a *app) archiveVerify(cmd *cobra.Command, f *archiveFlags) error {
	cfg, err := a.config()
	if err != nil {
		return err
	}
	name, root, err := f.place(cfg)
	if err != nil {
		return err
	}
	shown := newProgress(cmd.ErrOrStderr(), "archive verify")
	var all int64
	v, err := archive.Verify(cmd.Context(), root, cfg.TopicPrefix+name, func(done, total int64) {
		all = total
		shown.update(slog.Int64("bytes", done), slog.Int64("of", total))
	})
	if err != nil {
		return err
	}
	if shown.terminal || time.Since(shown.start) > shown.every {
		shown.done(slog.Int64("bytes", all), slog.Int64("of", all))
	}
	if err := a.show(cmd.OutOrStdout(), v, func() *table { return archiveTable(v.Partitions, false) }); err != nil {
		return err
	}
	if a.output == outputTable {
		for _, line := range append(v.Problems, v.Notes...) {
			fmt.Fprintln(cmd.OutOrStdout(), line)
		}
	}
	if n := len(v.Problems); n > 0 {
		return fmt.Errorf("the archive in %s is damaged: %d problems. Put the files back from a copy; if there is none and the topic still holds "+
			"these offsets, move the archive away and make a new one", v.Dir, n)
	}
	return nil
}
