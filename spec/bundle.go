package spec

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/opencontainers/runtime-spec/specs-go"
)

const configName = "config.json"

// Decode reads one runtime-spec. A field that this version of runtime-spec does not know is an error that names it, as
// is anything after the spec.
func Decode(r io.Reader) (*specs.Spec, error) {
	var s *specs.Spec
	if err := decodeStrict(r, &s); err != nil {
		return nil, fmt.Errorf("decode spec: %w", err)
	}
	if s == nil {
		return nil, errors.New("decode spec: it is null")
	}
	return s, nil
}

// DecodeProcess reads the process of an exec request as strictly as [Decode].
func DecodeProcess(b []byte) (*specs.Process, error) {
	var p *specs.Process
	if err := decodeStrict(bytes.NewReader(b), &p); err != nil {
		return nil, fmt.Errorf("decode process: %w", err)
	}
	if p == nil {
		return nil, errors.New("decode process: it is null")
	}
	return p, nil
}

func decodeStrict(r io.Reader, v any) error {
	d := json.NewDecoder(r)
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return err
	}
	if _, err := d.Token(); err != io.EOF {
		return errors.New("data after the end")
	}
	return nil
}

// ReadBundle decodes config.json in the bundle dir, see [Decode].
func ReadBundle(dir string) (*specs.Spec, error) {
	f, err := os.Open(filepath.Join(dir, configName))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	s, err := Decode(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.Name(), err)
	}
	return s, nil
}

// WriteBundle replaces config.json in the bundle dir, which must exist and be a regular file, by s. A reader sees the old
// file or the new one, never a part; the new one has the old one's mode and owner (an engine may have given it to the
// root of a user namespace). It does not wait for the disk: a bundle does not survive a reboot.
func WriteBundle(dir string, s *specs.Spec) (err error) {
	name := filepath.Join(dir, configName)
	old, err := os.Lstat(name)
	if err != nil {
		return err
	}
	if !old.Mode().IsRegular() {
		return fmt.Errorf("replace %s: not a regular file", name)
	}
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(s); err != nil {
		return fmt.Errorf("encode spec: %w", err)
	}
	tmp, err := os.CreateTemp(dir, "."+configName+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(tmp.Name()))
		}
	}()
	// Owner before mode: chown clears bits of the mode.
	_, err = tmp.Write(buf.Bytes())
	if err == nil {
		err = copyOwner(tmp, old)
	}
	if err == nil {
		err = tmp.Chmod(old.Mode().Perm())
	}
	if cerr := tmp.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(tmp.Name(), name)
	}
	if err != nil {
		return fmt.Errorf("replace %s: %w", name, err)
	}
	return nil
}
