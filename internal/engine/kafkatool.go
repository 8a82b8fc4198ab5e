package engine

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Tool runs one of Kafka's own command line tools against the broker, by its Java class, and returns what it printed.
// The address is passed as --bootstrap-server. Apache Kafka is installed when it is missing; the tools work with the
// embedded broker too.
func (k *Kafka) Tool(ctx context.Context, class string, args ...string) ([]byte, error) {
	java, libs, err := apacheKafka(ctx, os.Stderr)
	if err != nil {
		return nil, fmt.Errorf("run kafka tool %s: %w", class, err)
	}
	jvm := []string{"-Xmx256m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Dorg.slf4j.simpleLogger.defaultLogLevel=error",
		"-cp", filepath.Join(libs, "*"), class, "--bootstrap-server", k.Addr()}
	cmd := exec.Command(java, append(jvm, args...)...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	run, err := spawn(cmd)
	if err != nil {
		return nil, fmt.Errorf("run kafka tool %s: %w", class, err)
	}
	select {
	case <-run.exited:
	case <-ctx.Done():
		_ = run.kill()
		return nil, fmt.Errorf("run kafka tool %s: %w", class, ctx.Err())
	}
	if run.err != nil {
		return nil, fmt.Errorf("run kafka tool %s: %w\n%s", class, run.err, out.Bytes())
	}
	return out.Bytes(), nil
}

// ResetOffsets sets the group's offsets of a topic back to the start, with Kafka's consumer groups tool. The group must
// have no members.
func (k *Kafka) ResetOffsets(ctx context.Context, group, topic string) error {
	out, err := k.Tool(ctx, "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand",
		"--group", group, "--topic", topic, "--reset-offsets", "--to-earliest", "--execute")
	if err != nil {
		return err
	}
	// The tool says what went wrong and ends well.
	if strings.Contains(string(out), "Error:") {
		return fmt.Errorf("reset the offsets of group %s on %s: %s", group, topic, bytes.TrimSpace(out))
	}
	return nil
}

// DeleteRecords takes away the records of a partition before an offset, with Kafka's own tool, so that the log begins
// there.
func (k *Kafka) DeleteRecords(ctx context.Context, topic string, partition int, before int64) error {
	f, err := os.CreateTemp(k.dir, "delete-records-*.json")
	if err != nil {
		return fmt.Errorf("delete records of %s: %w", topic, err)
	}
	defer os.Remove(f.Name())
	_, err = fmt.Fprintf(f, `{"version":1,"partitions":[{"topic":%q,"partition":%d,"offset":%d}]}`, topic, partition, before)
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return fmt.Errorf("delete records of %s: %w", topic, err)
	}
	out, err := k.Tool(ctx, "org.apache.kafka.tools.DeleteRecordsCommand", "--offset-json-file", f.Name())
	if err != nil {
		return err
	}
	if strings.Contains(string(out), "\terror: ") {
		return fmt.Errorf("delete records of %s: %s", topic, bytes.TrimSpace(out))
	}
	return nil
}
