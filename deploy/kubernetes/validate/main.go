// Command validate renders kustomizations as kubectl would and validates what comes out: every object strictly against the
// Go types of its API, every pod against the restricted policy of Kubernetes, and the references between objects.
//
//	go run . ../base ../overlays/production
//
// It is a module of its own, so that none of this is a dependency of the service.
package main

import (
	"fmt"
	"os"
)

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: validate FOLDER...")
		os.Exit(2)
	}
	failed := false
	for _, folder := range os.Args[1:] {
		problems, count := validate(folder)
		for _, p := range problems {
			fmt.Fprintf(os.Stderr, "%s: %s\n", folder, p)
		}
		fmt.Fprintf(os.Stdout, "%s: %d objects, %d problems\n", folder, count, len(problems))
		failed = failed || len(problems) > 0
	}
	if failed {
		os.Exit(1)
	}
}

// validate returns what is wrong with the objects of a kustomization, and how many there are.
func validate(folder string) (problems []string, count int) {
	text, err := render(folder)
	if err != nil {
		return []string{err.Error()}, 0
	}
	objects, problems := decode(text)
	return append(problems, check(objects)...), len(objects)
}
