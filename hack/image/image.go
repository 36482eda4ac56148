// Package image writes an OCI image archive without a registry and without an engine.
//
// A list of files becomes one uncompressed layer, a config, a manifest and an index, in one tar that `ctr images import` of containerd 1.6
// and 2.x accepts (OCI image-spec v1.1, image-layout). The same list gives the same bytes: entries are sorted, times are the epoch, owners
// are numeric. Limits: one layer, one platform, the one this program was built for.
package image

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// A File is one entry of the layer. Path is absolute. Exactly one of Data, Link and Dir is used; a File with neither is an empty file.
type File struct {
	Path     string
	Data     []byte
	Link     string // target of a symbolic link
	Dir      bool
	Mode     int64 // permission bits, with 04000 for setuid; 0 means 0755 for a directory and 0644 for a file
	UID, GID int
}

// An Image is what Write writes.
type Image struct {
	Name  string // with a tag, e.g. cofferdam.test/agent:1
	Files []File
	Env   []string
	Cmd   []string
	Dir   string // working directory, "" means /
}

// Agent returns an image in which an agent could work: busybox and its applet links, accounts for root and agent (1000), and the usual
// folders. busybox is the path of a statically linked busybox on this host, which is run once to list its applets.
func Agent(name, busybox string, extra ...File) (Image, error) {
	box, err := os.ReadFile(busybox)
	if err != nil {
		return Image{}, err
	}
	list, err := exec.Command(busybox, "--list").Output()
	if err != nil {
		return Image{}, fmt.Errorf("list applets of %s: %w", busybox, err)
	}
	files := []File{
		{Path: "/bin/busybox", Data: box, Mode: 0o755},
		{Path: "/etc/passwd", Data: []byte("root:x:0:0:root:/root:/bin/sh\nagent:x:1000:1000:agent:/home/agent:/bin/sh\n")},
		{Path: "/etc/group", Data: []byte("root:x:0:\nagent:x:1000:\n")},
		{Path: "/etc/hosts", Data: []byte("127.0.0.1 localhost\n::1 localhost\n")},
		{Path: "/etc/nsswitch.conf", Data: []byte("hosts: files dns\n")},
		{Path: "/etc/resolv.conf"},
		{Path: "/root", Dir: true, Mode: 0o700},
		{Path: "/home/agent", Dir: true, UID: 1000, GID: 1000},
		{Path: "/tmp", Dir: true, Mode: 0o1777},
		{Path: "/workspace", Dir: true},
		{Path: "/dev", Dir: true},
		{Path: "/proc", Dir: true},
		{Path: "/sys", Dir: true},
		{Path: "/run", Dir: true},
		{Path: "/var/tmp", Dir: true, Mode: 0o1777},
	}
	for applet := range strings.FieldsSeq(string(list)) {
		if applet != "busybox" {
			files = append(files, File{Path: "/bin/" + applet, Link: "busybox"})
		}
	}
	return Image{
		Name:  name,
		Files: append(files, extra...),
		Env:   []string{"PATH=/usr/local/bin:/usr/bin:/bin"},
		Cmd:   []string{"/bin/sh"},
	}, nil
}

// Write writes the archive. A path given twice is an error.
func (img Image) Write(w io.Writer) error {
	layer, err := img.layer()
	if err != nil {
		return fmt.Errorf("image %s: %w", img.Name, err)
	}
	layerDesc := describe(v1.MediaTypeImageLayer, layer)
	created := time.Unix(0, 0).UTC()
	config, err := json.Marshal(v1.Image{
		Created:  &created,
		Platform: v1.Platform{Architecture: runtime.GOARCH, OS: "linux"},
		Config:   v1.ImageConfig{Env: img.Env, Cmd: img.Cmd, WorkingDir: img.Dir},
		RootFS:   v1.RootFS{Type: "layers", DiffIDs: []digest.Digest{layerDesc.Digest}},
	})
	if err != nil {
		return err
	}
	manifest, err := json.Marshal(v1.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: v1.MediaTypeImageManifest,
		Config:    describe(v1.MediaTypeImageConfig, config),
		Layers:    []v1.Descriptor{layerDesc},
	})
	if err != nil {
		return err
	}
	entry := describe(v1.MediaTypeImageManifest, manifest)
	entry.Platform = &v1.Platform{Architecture: runtime.GOARCH, OS: "linux"}
	_, tag, _ := strings.Cut(path.Base(img.Name), ":")
	entry.Annotations = map[string]string{
		"io.containerd.image.name": img.Name, // containerd takes the whole name from here
		v1.AnnotationRefName:       tag,
	}
	index, err := json.Marshal(v1.Index{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: v1.MediaTypeImageIndex,
		Manifests: []v1.Descriptor{entry},
	})
	if err != nil {
		return err
	}

	archive := []File{
		{Path: "/" + v1.ImageLayoutFile, Data: []byte(`{"imageLayoutVersion":"` + v1.ImageLayoutVersion + `"}`)},
		{Path: "/" + v1.ImageIndexFile, Data: index},
	}
	for _, blob := range [][]byte{config, layer, manifest} {
		sum := sha256.Sum256(blob)
		archive = append(archive, File{Path: "/blobs/sha256/" + hex.EncodeToString(sum[:]), Data: blob})
	}
	return writeTar(w, archive)
}

func (img Image) layer() ([]byte, error) {
	var buf bytes.Buffer
	if err := writeTar(&buf, img.Files); err != nil {
		return nil, err
	}
	return buf.Bytes(), nil
}

// writeTar writes files in the order of their paths, each after the folders it lies in.
func writeTar(w io.Writer, files []File) error {
	byPath := map[string]File{}
	for _, f := range files {
		f.Path = path.Clean("/" + f.Path)
		if _, twice := byPath[f.Path]; twice {
			return fmt.Errorf("%s is listed twice", f.Path)
		}
		byPath[f.Path] = f
	}
	for p := range byPath {
		for dir := path.Dir(p); dir != "/"; dir = path.Dir(dir) {
			if _, ok := byPath[dir]; !ok {
				byPath[dir] = File{Path: dir, Dir: true}
			}
		}
	}
	paths := make([]string, 0, len(byPath))
	for p := range byPath {
		paths = append(paths, p)
	}
	slices.Sort(paths)

	tw := tar.NewWriter(w)
	for _, p := range paths {
		f := byPath[p]
		h := &tar.Header{
			Name: strings.TrimPrefix(p, "/"), Typeflag: tar.TypeReg, Mode: f.Mode, Size: int64(len(f.Data)),
			Uid: f.UID, Gid: f.GID, ModTime: time.Unix(0, 0), Format: tar.FormatPAX,
		}
		switch {
		case f.Dir:
			h.Typeflag, h.Size, h.Name = tar.TypeDir, 0, h.Name+"/"
		case f.Link != "":
			h.Typeflag, h.Size, h.Linkname = tar.TypeSymlink, 0, f.Link
		}
		switch {
		case h.Mode != 0:
		case h.Typeflag == tar.TypeReg:
			h.Mode = 0o644
		default:
			h.Mode = 0o755
		}
		if err := tw.WriteHeader(h); err != nil {
			return fmt.Errorf("%s: %w", p, err)
		}
		if h.Typeflag == tar.TypeReg {
			if _, err := tw.Write(f.Data); err != nil {
				return fmt.Errorf("%s: %w", p, err)
			}
		}
	}
	return tw.Close()
}

func describe(mediaType string, blob []byte) v1.Descriptor {
	return v1.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(blob), Size: int64(len(blob))}
}
