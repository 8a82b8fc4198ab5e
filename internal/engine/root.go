package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Root returns the module's root directory: the nearest one with tenantflow's go.mod, looking upwards from the working
// directory and then from the executable.
func Root() (string, error) {
	var from []string
	if dir, err := os.Getwd(); err == nil {
		from = append(from, dir)
	}
	if exe, err := os.Executable(); err == nil {
		from = append(from, filepath.Dir(exe))
	}
	for _, dir := range from {
		for {
			b, err := os.ReadFile(filepath.Join(dir, "go.mod"))
			if err == nil && strings.HasPrefix(string(b), "module tenantflow\n") {
				return dir, nil
			}
			up := filepath.Dir(dir)
			if up == dir {
				break
			}
			dir = up
		}
	}
	return "", errors.New("find the root of the tenantflow module: no go.mod of it above the working directory or the executable")
}

// localDir makes and returns a directory below the module's .local, which holds everything that is installed or kept.
func localDir(elem ...string) (string, error) {
	root, err := Root()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(append([]string{root, ".local"}, elem...)...)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("make a local directory: %w", err)
	}
	return dir, nil
}

// locked runs do while no other process runs one under the same name.
func locked(name string, do func() error) error {
	dir, err := localDir()
	if err != nil {
		return err
	}
	f, err := os.OpenFile(filepath.Join(dir, name+".lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return fmt.Errorf("lock %s: %w", name, err)
	}
	defer f.Close()
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		return fmt.Errorf("lock %s: %w", name, err)
	}
	return do()
}

// localstackSources are the directories whose files decide whether the localstack binary that is there will do as a
// child of an engine. Its other commands may be older than their sources then.
func localstackSources() []string {
	return []string{"cmd/localstack", "internal/chdb", "internal/engine"}
}

// localstack returns the path of the binary that runs ClickHouse and the embedded broker. It is built when it is
// missing or older than its sources. Within localstack it is the running binary.
func localstack(ctx context.Context) (string, error) {
	exe, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("find the executable: %w", err)
	}
	if filepath.Base(exe) == "localstack" {
		return exe, nil
	}
	root, err := Root()
	if err != nil {
		return "", err
	}
	bin, err := localDir("bin")
	if err != nil {
		return "", err
	}
	build, err := localDir("build")
	if err != nil {
		return "", err
	}
	path := filepath.Join(bin, "localstack")
	if fresh(path, root) {
		return path, nil
	}
	err = locked("build", func() error {
		if fresh(path, root) {
			return nil // the process that held the lock has built it
		}
		// Not into its place at once: the old one may be running, and another process may be about to start it.
		built := filepath.Join(build, "localstack")
		cmd := exec.CommandContext(ctx, "go", "build", "-o", built, "./cmd/localstack")
		cmd.Dir = root
		began := time.Now() // a source that is changed while the compiler runs must count as newer
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("build cmd/localstack: %w\n%s", err, out)
		}
		if err := os.Chtimes(built, began, began); err != nil {
			return err
		}
		return os.Rename(built, path)
	})
	if err != nil {
		return "", err
	}
	return path, nil
}

// fresh reports whether the binary is there and no older than its sources.
func fresh(binary, root string) bool {
	info, err := os.Stat(binary)
	if err != nil {
		return false
	}
	sources := []string{filepath.Join(root, "go.mod")}
	for _, dir := range localstackSources() {
		files, err := filepath.Glob(filepath.Join(root, dir, "*.go"))
		if err != nil {
			return false
		}
		sources = append(sources, files...)
	}
	for _, source := range sources {
		if strings.HasSuffix(source, "_test.go") {
			continue
		}
		s, err := os.Stat(source)
		if err != nil || s.ModTime().After(info.ModTime()) {
			return false
		}
	}
	return true
}
