//go:build linux

package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/fsnotify/fsnotify"
	"github.com/spf13/cobra"

	"cofferdam.dev/cofferdam/proxy/record"
	"cofferdam.dev/cofferdam/shim/sandbox"
)

func logCommand(p sandbox.Paths) *cobra.Command {
	var follow, asJSON bool
	c := &cobra.Command{
		Use:   "log [ID]",
		Short: "Print what agents asked for, and what was decided",
		Long: `Prints the decisions of one sandbox, or of all of them in the order of time: what was asked for, allow or deny, and the rule or
reason; and for each connection that was allowed, the bytes that went up and down. Logs outlive their sandboxes.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			out := printer{w: cmd.OutOrStdout(), json: asJSON}
			files := everyLog
			if len(args) == 1 {
				ids, err := logs(p)
				if err != nil {
					return err
				}
				id, err := find(ids, args[0])
				if err != nil {
					return err
				}
				files = func(name string) bool {
					of, ok := sandbox.LogID(name)
					return ok && of == id
				}
			} else {
				out.withSandbox = true
			}
			if follow {
				return followLogs(cmd.Context(), p.Logs, files, out, cmd.ErrOrStderr())
			}
			t := newTail(p.Logs, files)
			records, err := t.read()
			out.print(records)
			return err
		},
	}
	c.Flags().BoolVarP(&follow, "follow", "f", false, "go on printing what is decided from now on")
	c.Flags().BoolVar(&asJSON, "json", false, "print the records as they are, one JSON object a line")
	return c
}

func everyLog(name string) bool {
	_, ok := sandbox.LogID(name)
	return ok
}

// logs returns the sandboxes that have a log, living or gone.
func logs(p sandbox.Paths) ([]string, error) {
	entries, err := os.ReadDir(p.Logs)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var ids []string
	for _, e := range entries {
		if id, ok := sandbox.LogID(e.Name()); ok {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return slices.Compact(ids), err
}

type printer struct {
	w           io.Writer
	json        bool
	withSandbox bool
}

func (p printer) print(entries []record.Record) {
	enc := json.NewEncoder(p.w)
	for _, e := range entries {
		switch {
		case p.json:
			_ = enc.Encode(e)
		case p.withSandbox:
			fmt.Fprintf(p.w, "%-24s %s\n", e.Sandbox, e)
		default:
			fmt.Fprintln(p.w, e)
		}
	}
}

// tail reads what was appended to the logs of a folder since the last time.
type tail struct {
	dir   string
	files func(name string) bool
	at    map[string]int64 // offset of the first byte not yet read, by file name
}

func newTail(dir string, files func(string) bool) *tail {
	return &tail{dir: dir, files: files, at: map[string]int64{}}
}

// read returns the new records in the order of time. A line that is still being written waits for the next call; one that is no record is
// an error that does not hide the others.
func (t *tail) read() ([]record.Record, error) {
	dir, err := os.ReadDir(t.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var (
		all  []record.Record
		errs []error
	)
	for _, e := range dir {
		if !t.files(e.Name()) {
			continue
		}
		entries, err := t.readFile(e.Name())
		all = append(all, entries...)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", filepath.Join(t.dir, e.Name()), err))
		}
	}
	slices.SortStableFunc(all, func(a, b record.Record) int { return cmp.Or(a.Time.Compare(b.Time), cmp.Compare(a.Seq, b.Seq)) })
	return all, errors.Join(errs...)
}

func (t *tail) readFile(name string) ([]record.Record, error) {
	f, err := os.Open(filepath.Join(t.dir, name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if _, err := f.Seek(t.at[name], io.SeekStart); err != nil {
		return nil, err
	}
	b, err := io.ReadAll(f)
	if err != nil {
		return nil, err
	}
	id, _ := sandbox.LogID(name)
	whole := bytes.LastIndexByte(b, '\n') + 1
	t.at[name] += int64(whole)
	var (
		entries []record.Record
		errs    []error
	)
	for line := range bytes.Lines(b[:whole]) {
		for r, err := range record.Read(bytes.NewReader(line)) {
			if err != nil {
				errs = append(errs, err)
				continue
			}
			r.Sandbox = id // not what the proxy says it is
			entries = append(entries, r)
		}
	}
	return entries, errors.Join(errs...)
}

// followLogs prints what there is and then what comes, until ctx ends.
func followLogs(ctx context.Context, dir string, files func(string) bool, out printer, warnings io.Writer) error {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch %s: %w", dir, err)
	}
	defer w.Close()
	// The folder is watched, so that logs which appear later are seen; it is watched before the first read, so that nothing falls between.
	if err := w.Add(dir); err != nil {
		return fmt.Errorf("watch %s: %w", dir, err)
	}
	t := newTail(dir, files)
	for {
		entries, err := t.read()
		out.print(entries)
		if err != nil { // a proxy that was killed can leave a torn line
			fmt.Fprintf(warnings, "cofferdam: warning: %v\n", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case _, ok := <-w.Events:
			if !ok {
				return nil
			}
		case err := <-w.Errors:
			return fmt.Errorf("watch %s: %w", dir, err)
		}
	}
}
