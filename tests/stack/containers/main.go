// Reads what Docker would read, with its own parsers, and writes JSON: `containers compose FILE`, `containers dockerfile
// FILE`, `containers context FOLDER` (the files of the build context, after .dockerignore).
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/linter"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/patternmatcher"
	"github.com/moby/patternmatcher/ignorefile"
)

func main() {
	if len(os.Args) != 3 {
		fail(fmt.Errorf("usage: containers compose|dockerfile|context PATH"))
	}
	readers := map[string]func(string) (any, error){"compose": compose, "dockerfile": dockerfile, "context": buildContext}
	read, known := readers[os.Args[1]]
	if !known {
		fail(fmt.Errorf("no such reader: %s", os.Args[1]))
	}
	found, err := read(os.Args[2])
	if err != nil {
		fail(err)
	}
	encoder := json.NewEncoder(os.Stdout)
	encoder.SetIndent("", " ")
	if err := encoder.Encode(found); err != nil {
		fail(err)
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// compose loads a project as `docker compose config` does: schema, interpolation, consistency.
func compose(path string) (any, error) {
	options, err := cli.NewProjectOptions([]string{path}, cli.WithName("project"), cli.WithResolvedPaths(true),
		cli.WithDiscardEnvFile, cli.WithProfiles([]string{"*"}))
	if err != nil {
		return nil, err
	}
	project, err := options.LoadProject(context.Background())
	if err != nil {
		return nil, err
	}
	return project, nil
}

// dockerfile parses into stages of instructions, with the warnings of Docker's linter.
func dockerfile(path string) (any, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	parsed, err := parser.Parse(file)
	if err != nil {
		return nil, err
	}
	warnings := []string{}
	for _, each := range parsed.Warnings {
		warnings = append(warnings, each.Short)
	}
	lint := linter.New(&linter.Config{
		Warn: func(rule, _, _, message string, _ []parser.Range) {
			warnings = append(warnings, rule+": "+message)
		},
	})
	stages, arguments, err := instructions.Parse(parsed.AST, lint)
	if err != nil {
		return nil, err
	}
	type instruction struct {
		Name string
		Text string
		Data any
	}
	type stage struct {
		Name     string
		Base     string
		Commands []instruction
	}
	told := []stage{}
	for _, each := range stages {
		one := stage{Name: each.Name, Base: each.BaseName, Commands: []instruction{}}
		for _, command := range each.Commands {
			one.Commands = append(one.Commands, instruction{command.Name(), fmt.Sprint(command), command})
		}
		told = append(told, one)
	}
	return map[string]any{"stages": told, "arguments": arguments, "warnings": warnings}, nil
}

// buildContext lists what `docker build FOLDER` would send.
func buildContext(root string) (any, error) {
	file, err := os.Open(filepath.Join(root, ".dockerignore"))
	if err != nil {
		return nil, err
	}
	defer file.Close()
	patterns, err := ignorefile.ReadAll(file)
	if err != nil {
		return nil, err
	}
	matcher, err := patternmatcher.New(patterns)
	if err != nil {
		return nil, err
	}
	sent := []string{}
	err = filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, path)
		if err != nil || name == "." {
			return err
		}
		ignored, err := matcher.MatchesOrParentMatches(name)
		if err != nil {
			return err
		}
		if ignored && entry.IsDir() && !matcher.Exclusions() {
			return filepath.SkipDir
		}
		if !ignored && !entry.IsDir() {
			sent = append(sent, name)
		}
		return nil
	})
	return sent, err
}
