package engine

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Install installs every engine that is missing and builds what runs them, so that later starts need no network. log
// gets a line for each thing it does.
func Install(ctx context.Context, log io.Writer) error {
	o := Options{Log: log}
	if _, err := redisServer(ctx, o.log()); err != nil {
		return err
	}
	if _, err := Lua54(ctx, o); err != nil {
		return err
	}
	if _, err := Promtool(ctx, o); err != nil {
		return err
	}
	if _, err := postgresBin(ctx, o.log()); err != nil {
		return err
	}
	if _, err := clickhouseLibrary(ctx, o.log()); err != nil {
		return err
	}
	if _, _, err := apacheKafka(ctx, o.log()); err != nil {
		return err
	}
	_, err := localstack(ctx)
	return err
}

// redisServer finds the redis-server program.
func redisServer(ctx context.Context, log io.Writer) (string, error) {
	return program(ctx, log, "redis-server", redisPackage)
}

// Lua54 finds the interpreter of the Lua that Dragonfly has, which is not Redis's.
func Lua54(ctx context.Context, o Options) (string, error) {
	return program(ctx, o.log(), "lua5.4", luaPackage)
}

// Promtool finds the program that checks metrics and alerts, which comes with Prometheus.
func Promtool(ctx context.Context, o Options) (string, error) {
	return program(ctx, o.log(), "promtool", promtoolPackage)
}

// postgresBin finds the directory with PostgreSQL's server programs, which Debian keeps out of PATH. A newer major
// version that is there already will do.
func postgresBin(ctx context.Context, log io.Writer) (string, error) {
	find := func() string {
		const base = "/usr/lib/postgresql"
		least, _ := strconv.Atoi(postgresMajor)
		entries, err := os.ReadDir(base)
		if err != nil {
			return ""
		}
		var majors []int
		for _, entry := range entries {
			major, err := strconv.Atoi(entry.Name())
			if err != nil || major < least {
				continue
			}
			if _, err := os.Stat(filepath.Join(base, entry.Name(), "bin", "initdb")); err == nil {
				majors = append(majors, major)
			}
		}
		if len(majors) == 0 {
			return ""
		}
		return filepath.Join(base, strconv.Itoa(slices.Min(majors)), "bin")
	}
	return installed(ctx, log, "PostgreSQL "+postgresMajor, find, postgresPackage)
}

// clickhouseLibrary finds libchdb.so.
func clickhouseLibrary(ctx context.Context, log io.Writer) (string, error) {
	dir, err := localDir("chdb")
	if err != nil {
		return "", err
	}
	home := filepath.Join(dir, "node_modules", filepath.FromSlash(clickhousePackage))
	lib := filepath.Join(home, "libchdb.so")
	there := func() bool {
		// npm writes package.json last of all only by chance; the marker is written when it is done.
		b, err := os.ReadFile(filepath.Join(dir, "installed"))
		return err == nil && string(b) == clickhouseVersion && exists(lib)
	}
	if there() {
		return lib, nil
	}
	err = locked("install", func() error {
		if there() {
			return nil
		}
		want := clickhousePackage + "@" + clickhouseVersion
		if packageVersion(home) != clickhouseVersion || !exists(lib) {
			npm, err := program(ctx, log, "npm", npmPackage, alreadyLocked)
			if err != nil {
				return err
			}
			if err := run(ctx, log, dir, npm, "install", "--prefix", dir, "--no-save", "--no-package-lock", "--no-audit", "--no-fund",
				"--loglevel=error", want); err != nil {
				return err
			}
			if !exists(lib) {
				return fmt.Errorf("npm installed %s without %s: is this linux on amd64?", want, lib)
			}
		}
		return writeFile(filepath.Join(dir, "installed"), clickhouseVersion)
	})
	if err != nil {
		return "", fmt.Errorf("install ClickHouse %s: %w", clickhouseVersion, err)
	}
	return lib, nil
}

func packageVersion(dir string) string {
	b, err := os.ReadFile(filepath.Join(dir, "package.json"))
	if err != nil {
		return ""
	}
	var p struct{ Version string }
	if json.Unmarshal(b, &p) != nil {
		return ""
	}
	return p.Version
}

// apacheKafka finds the java program and the directory with Apache Kafka's jars.
func apacheKafka(ctx context.Context, log io.Writer) (java, libs string, err error) {
	java, err = program(ctx, log, "java", javaPackage)
	if err != nil {
		return "", "", err
	}
	dir, err := localDir("kafka")
	if err != nil {
		return "", "", err
	}
	libs = filepath.Join(dir, "libs")
	there := func() bool {
		b, err := os.ReadFile(filepath.Join(libs, "installed"))
		return err == nil && string(b) == kafkaVersion
	}
	if there() {
		return java, libs, nil
	}
	err = locked("install", func() error {
		if there() {
			return nil
		}
		mvn, err := program(ctx, log, "mvn", mavenPackage, alreadyLocked)
		if err != nil {
			return err
		}
		if err := writeFile(filepath.Join(dir, "pom.xml"), pom()); err != nil {
			return err
		}
		if err := os.RemoveAll(libs); err != nil {
			return err
		}
		if err := run(ctx, log, dir, mvn, "-q", "-B", mavenCopyPlugin, "-DincludeScope=runtime", "-DoutputDirectory="+libs); err != nil {
			return err
		}
		return writeFile(filepath.Join(libs, "installed"), kafkaVersion)
	})
	if err != nil {
		return "", "", fmt.Errorf("install Apache Kafka %s: %w", kafkaVersion, err)
	}
	return java, libs, nil
}

// pom asks Maven for the broker, its command line tools and a place for their logs to go.
func pom() string {
	var b strings.Builder
	b.WriteString(`<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>tenantflow</groupId>
  <artifactId>local-kafka</artifactId>
  <version>1</version>
  <dependencies>
`)
	for _, d := range [][3]string{
		{"org.apache.kafka", "kafka_" + kafkaScalaVersion, kafkaVersion},
		{"org.apache.kafka", "kafka-tools", kafkaVersion},
		{"org.slf4j", "slf4j-simple", slf4jVersion},
	} {
		fmt.Fprintf(&b, "    <dependency><groupId>%s</groupId><artifactId>%s</artifactId><version>%s</version></dependency>\n", d[0], d[1], d[2])
	}
	b.WriteString("  </dependencies>\n</project>\n")
	return b.String()
}

type installOption int

// alreadyLocked says that the caller holds the install lock.
const alreadyLocked installOption = iota

// program finds a program in PATH, installing the Debian package it comes with when it is missing.
func program(ctx context.Context, log io.Writer, name, debianPackage string, opts ...installOption) (string, error) {
	find := func() string {
		path, err := exec.LookPath(name)
		if err != nil {
			return ""
		}
		return path
	}
	return installed(ctx, log, name, find, debianPackage, opts...)
}

// installed returns what find finds, after installing the Debian package if it finds nothing at first.
func installed(ctx context.Context, log io.Writer, what string, find func() string, debianPackage string, opts ...installOption) (string, error) {
	if path := find(); path != "" {
		return path, nil
	}
	install := func() error {
		if find() != "" {
			return nil
		}
		return aptInstall(ctx, log, what, debianPackage)
	}
	var err error
	if slices.Contains(opts, alreadyLocked) {
		err = install()
	} else {
		err = locked("install", install)
	}
	if err != nil {
		return "", err
	}
	path := find()
	if path == "" {
		return "", fmt.Errorf("%s is still missing after the package %s was installed", what, debianPackage)
	}
	return path, nil
}

// aptInstall installs a Debian package. The package lists are fetched when it is not among them as they are.
func aptInstall(ctx context.Context, log io.Writer, what, debianPackage string) error {
	byHand := fmt.Sprintf("install it by hand: sudo apt-get update && sudo apt-get install -y %s", debianPackage)
	apt, err := exec.LookPath("apt-get")
	if err != nil {
		return fmt.Errorf("%s is missing, and so is apt-get to install it with: install it (in Debian it comes with %s)", what, debianPackage)
	}
	if os.Geteuid() != 0 {
		return fmt.Errorf("%s is missing, and only root may install it; %s", what, byHand)
	}
	if err := run(ctx, log, "/", apt, "update", "-qq"); err != nil {
		return fmt.Errorf("%s is missing; %s: %w", what, byHand, err)
	}
	if err := run(ctx, log, "/", apt, "install", "-y", "-qq", "--no-install-recommends", debianPackage); err != nil {
		return fmt.Errorf("%s is missing; %s: %w", what, byHand, err)
	}
	return nil
}

// run runs a package client, saying so, and puts the end of what it printed into the error.
func run(ctx context.Context, log io.Writer, dir, name string, args ...string) error {
	line := strings.Join(append([]string{filepath.Base(name)}, args...), " ")
	fmt.Fprintln(log, "installing:", line)
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
	out, err := cmd.CombinedOutput()
	if err != nil {
		out = bytes.TrimSpace(out)
		if len(out) > 2000 {
			out = out[len(out)-2000:]
		}
		return fmt.Errorf("%s: %w\n%s", line, err, out)
	}
	return nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// writeFile writes a file in one step: it is there with all of its content or not at all.
func writeFile(path, content string) error {
	next := path + ".next"
	if err := os.WriteFile(next, []byte(content), 0o644); err != nil {
		return err
	}
	return os.Rename(next, path)
}
