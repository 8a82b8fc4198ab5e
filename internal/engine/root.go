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

// localstack returns the path of the binary that runs ClickHouse and the embedded broker, built from the sources as
// they are now; the go command's cache makes that cheap. Within localstack that is the running binary.
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
	err = locked("build", func() error {
		// Not into the final place: that may be running, and the go command would leave it missing for a moment.
		built := filepath.Join(build, "localstack")
		cmd := exec.CommandContext(ctx, "go", "build", "-o", built, "./cmd/localstack")
		cmd.Dir = root
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("build cmd/localstack: %w\n%s", err, out)
		}
		return publish(built, path)
	})
	if err != nil {
		return "", err
	}
	return path, nil
}

// publish makes path a copy of file in one step, unless it is one already.
func publish(file, path string) error {
	from, err := os.Stat(file)
	if err != nil {
		return err
	}
	if to, err := os.Stat(path); err == nil && to.Size() == from.Size() && to.ModTime().Equal(from.ModTime()) {
		return nil
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	next := path + ".next"
	if err := os.WriteFile(next, b, 0o755); err != nil {
		return err
	}
	if err := os.Chtimes(next, from.ModTime(), from.ModTime()); err != nil {
		return err
	}
	return os.Rename(next, path)
}
