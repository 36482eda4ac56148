package registry

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"net/http"
	"strings"
)

// Host stands in a file for the host by which it is asked for.
const Host = "host.placeholder"

// Files are served by path. What there is none of is a 404.
type Files map[string]string

func (f Files) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	text, ok := f[r.URL.Path]
	if !ok {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", http.DetectContentType([]byte(text)))
	_, _ = w.Write([]byte(strings.ReplaceAll(text, Host, r.Host))) // whoever has asked may be gone
}

// entry is a file of an archive. Mode counts in a tar alone; 0 stands for 0644.
type entry struct {
	name, text string
	mode       int64
}

// Writing an archive to memory does not fail, but by a mistake in an entry.

func tarball(entries ...entry) string {
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	t := tar.NewWriter(z)
	for _, e := range entries {
		if e.mode == 0 {
			e.mode = 0o644
		}
		must(t.WriteHeader(&tar.Header{Name: e.name, Mode: e.mode, Size: int64(len(e.text))}))
		_, err := t.Write([]byte(e.text))
		must(err)
	}
	must(t.Close())
	must(z.Close())
	return out.String()
}

func zipped(entries ...entry) string {
	var out bytes.Buffer
	z := zip.NewWriter(&out)
	for _, e := range entries {
		w, err := z.Create(e.name)
		must(err)
		_, err = w.Write([]byte(e.text))
		must(err)
	}
	must(z.Close())
	return out.String()
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}
