package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
)

// fileSuffix makes the name of a secret the name of the file that holds it.
const fileSuffix = "_FILE"

// maxSecretFile is more than any password or URL needs, and stops a wrong path from filling the memory.
const maxSecretFile = 64 << 10

// readEnvironment collects the settings' values by name, reading secrets from their files. Names that start like a
// setting and are none are problems: a setting with a typo would otherwise silently keep its default.
func readEnvironment(environ []string) (map[string]source, []Problem) {
	all := declarations()
	known := make(map[string]declaration, len(all))
	for _, d := range all {
		known[d.Name] = d
	}

	values := map[string]source{}
	var problems []Problem
	for _, pair := range environ {
		name, value, _ := strings.Cut(pair, "=")
		if value == "" || !strings.HasPrefix(name, Prefix) || fromKubernetes(name) {
			continue
		}
		if _, ok := known[name]; ok {
			// A secret's file may have been read before: then the second one is found below.
			values[name] = source{raw: value}
			continue
		}
		if d, ok := known[strings.TrimSuffix(name, fileSuffix)]; !ok || !d.Secret {
			problems = append(problems, unknownName(name, all))
		}
	}
	for _, pair := range environ {
		name, path, _ := strings.Cut(pair, "=")
		d, ok := known[strings.TrimSuffix(name, fileSuffix)]
		if path == "" || !ok || !d.Secret || name == d.Name {
			continue
		}
		if _, both := values[d.Name]; both {
			problems = append(problems, Problem{
				Setting: d.Name,
				Wrong:   "it is set, and so is " + name,
				Do:      "keep one of the two",
			})
			continue
		}
		secret, err := readSecret(path)
		if err != nil {
			problems = append(problems, Problem{Setting: name, Wrong: err.Error(), Do: "name a readable file that holds only the value"})
			continue
		}
		values[d.Name] = source{raw: secret, file: path}
	}
	return values, problems
}

// fromKubernetes says whether a name is one that Kubernetes sets for a Service called tenantflow.
func fromKubernetes(name string) bool {
	rest := strings.TrimPrefix(name, Prefix)
	return strings.HasPrefix(rest, "SERVICE_") || strings.HasPrefix(rest, "PORT")
}

// readSecret reads a secret's file. Line ends after the value are dropped, because editors and tools add them.
func readSecret(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("reading %s: %w", path, cause(err))
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxSecretFile+1))
	if err != nil {
		return "", fmt.Errorf("reading %s: %w", path, cause(err))
	}
	if len(b) > maxSecretFile {
		return "", fmt.Errorf("%s is larger than %s", path, Bytes(maxSecretFile))
	}
	value := strings.TrimRight(string(b), "\r\n")
	if value == "" {
		return "", fmt.Errorf("%s is empty", path)
	}
	return value, nil
}

// cause drops the path from a file error, which the message has already.
func cause(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

// unknownName makes the problem for a name that is no setting, with the setting that was probably meant.
func unknownName(name string, all []declaration) Problem {
	p := Problem{Setting: name, Wrong: "there is no such setting", Do: "remove it (tenantflow config print lists all settings)"}
	best, nearest := 4, ""
	for _, d := range all {
		names := []string{d.Name}
		if d.Secret {
			names = append(names, d.Name+fileSuffix)
		}
		for _, candidate := range names {
			if n := distance(strings.TrimPrefix(name, Prefix), strings.TrimPrefix(candidate, Prefix)); n < best {
				best, nearest = n, candidate
			}
		}
	}
	if nearest != "" {
		p.Do = "did you mean " + nearest + "?"
	}
	if d, ok := strings.CutSuffix(name, fileSuffix); ok {
		for _, one := range all {
			if one.Name == d {
				p.Wrong = d + " is not a secret and can't come from a file"
				p.Do = "set " + d + " itself"
			}
		}
	}
	return p
}

// distance is the number of letters to add, drop or replace to turn a into b (Levenshtein's distance).
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replace := diagonal
			if a[i] != b[j] {
				replace++
			}
			diagonal = row[j+1]
			row[j+1] = min(replace, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
