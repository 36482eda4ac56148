package image

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

func small(files ...File) Image {
	return Image{Name: "cofferdam.test/small:7", Files: files, Cmd: []string{"/a/b"}}
}

func archive(t *testing.T, img Image) []byte {
	t.Helper()
	var buf bytes.Buffer
	if err := img.Write(&buf); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// entries returns the files of a tar by name, and the names in order.
func entries(t *testing.T, raw []byte) (map[string][]byte, []string) {
	t.Helper()
	files, names := map[string][]byte{}, []string(nil)
	for tr := tar.NewReader(bytes.NewReader(raw)); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return files, names
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(tr)
		if err != nil {
			t.Fatal(err)
		}
		files[h.Name], names = data, append(names, h.Name)
	}
}

func TestTheSameFilesGiveTheSameBytes(t *testing.T) {
	x := File{Path: "/a/b", Data: []byte("x"), Mode: 0o4755}
	y := File{Path: "/a/link", Link: "b"}
	if !bytes.Equal(archive(t, small(x, y)), archive(t, small(y, x))) {
		t.Error("the order of the list shows in the archive")
	}
}

func TestArchiveIsAnImageLayout(t *testing.T) {
	files, _ := entries(t, archive(t, small(File{Path: "/a/b", Data: []byte("x")})))
	var index v1.Index
	if err := json.Unmarshal(files["index.json"], &index); err != nil {
		t.Fatal(err)
	}
	if got, want := index.Manifests[0].Annotations["io.containerd.image.name"], "cofferdam.test/small:7"; got != want {
		t.Errorf("name = %q, want %q", got, want)
	}
	var manifest v1.Manifest
	if err := json.Unmarshal(files["blobs/sha256/"+index.Manifests[0].Digest.Encoded()], &manifest); err != nil {
		t.Fatal(err)
	}
	layer, names := entries(t, files["blobs/sha256/"+manifest.Layers[0].Digest.Encoded()])
	if want := []string{"a/", "a/b"}; !slices.Equal(names, want) {
		t.Errorf("layer holds %q, want %q", names, want)
	}
	if got := string(layer["a/b"]); got != "x" {
		t.Errorf("a/b = %q", got)
	}
}

func TestAPathListedTwiceIsRefused(t *testing.T) {
	err := small(File{Path: "/a"}, File{Path: "a"}).Write(io.Discard)
	if err == nil || !strings.Contains(err.Error(), "twice") {
		t.Errorf("got %v", err)
	}
}
