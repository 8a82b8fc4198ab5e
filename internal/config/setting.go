package config

import (
	"fmt"
	"io"
	"reflect"
	"strings"
)

// A Setting is one setting with its value, ready to be shown: secrets are redacted.
type Setting struct {
	Section string `json:"section"`
	Name    string `json:"name"`
	Value   string `json:"value"`
	Source  string `json:"source"` // default, environment, "file <path>", or unset where there is no default either
	Default string `json:"default"`
	Unit    string `json:"unit,omitempty"` // what a value looks like or is counted in
	Secret  bool   `json:"secret,omitempty"`
	Meaning string `json:"meaning"`
}

// A declaration is what the tags of a field of [Config] say.
type declaration struct {
	Section, Name, Default, Unit, Meaning string

	Secret bool
	redact func(string) string // nil: the value may be shown
}

func declarations() []declaration {
	var all []declaration
	section := ""
	t := reflect.TypeFor[Config]()
	for i := range t.NumField() {
		tag := t.Field(i).Tag
		if tag.Get("env") == "" {
			continue
		}
		if s := tag.Get("section"); s != "" {
			section = s
		}
		d := declaration{
			Section: section,
			Name:    Prefix + tag.Get("env"),
			Default: tag.Get("envDefault"),
			Unit:    tag.Get("unit"),
			Meaning: tag.Get("help"),
		}
		switch t.Field(i).Type {
		case reflect.TypeFor[Secret]():
			d.redact = func(string) string { return hidden }
		case reflect.TypeFor[SecretURL]():
			d.redact = redactURL
		}
		d.Secret = d.redact != nil
		all = append(all, d)
	}
	return all
}

// Settings lists every setting with its value and where the value came from, in the order of declaration.
func (c *Config) Settings() []Setting {
	var all []Setting
	for _, d := range declarations() {
		s := Setting{
			Section: d.Section, Name: d.Name, Default: d.Default, Unit: d.Unit, Secret: d.Secret, Meaning: d.Meaning,
			Value: d.Default, Source: "default",
		}
		got, ok := c.sources[d.Name]
		switch {
		case ok && got.file != "":
			s.Value, s.Source = got.raw, "file "+got.file
		case ok:
			s.Value, s.Source = got.raw, "environment"
		case d.Default == "":
			s.Source = "unset"
		}
		if d.Secret && s.Value != "" {
			s.Value = d.redact(s.Value)
		}
		all = append(all, s)
	}
	return all
}

// WriteMarkdown writes the reference of all settings.
func WriteMarkdown(w io.Writer) error {
	var b strings.Builder
	b.WriteString(`# Configuration

This file is made by ` + "`tenantflow config docs`" + ` from the declarations in internal/config; change it there.

Every setting is an environment variable. A secret can also come from a file: set the variable's name with ` + "`_FILE`" + ` added
to the file's path (not both). An empty value counts as not set. An unknown name that starts with ` + "`" + Prefix + "`" + ` is an error, except
the ` + "`TENANTFLOW_SERVICE_*` and `TENANTFLOW_PORT*`" + ` that Kubernetes sets. All problems are reported at once, with exit code 2:
` + "`tenantflow config check`" + ` looks for them without starting anything, and ` + "`tenantflow config print`" + ` shows every value and
where it came from, without the secrets.

Tracing is set by the standard OTEL_* variables of OpenTelemetry, which are not listed here: see [operations.md](operations.md#tracing).

Durations are written like ` + "`500ms`, `15s`, `2m`, `1h30m`" + `; sizes in bytes or like ` + "`512KiB`, `128MiB`, `1GiB`" + `.
`)
	section := ""
	for _, d := range declarations() {
		if d.Section != section {
			section = d.Section
			fmt.Fprintf(&b, "\n## %s\n\n| setting | default | unit or values | meaning |\n| --- | --- | --- | --- |\n", section)
		}
		name := "`" + d.Name + "`"
		if d.Secret {
			name += " (secret)"
		}
		def := ""
		if d.Default != "" {
			def = "`" + d.Default + "`"
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", name, def, d.Unit, strings.NewReplacer("<", "&lt;", ">", "&gt;", "|", "\\|").Replace(d.Meaning))
	}
	if _, err := io.WriteString(w, b.String()); err != nil {
		return fmt.Errorf("writing the settings' reference: %w", err)
	}
	return nil
}
