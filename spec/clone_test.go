package spec

import (
	"encoding/json"
	"reflect"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// fill sets everything that there is in v.
func fill(t *testing.T, v reflect.Value) {
	t.Helper()
	switch v.Kind() {
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		v.SetInt(7)
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(7)
	case reflect.String:
		v.SetString("a\xff\xfe\u00e4")
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(t, v.Elem())
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		fill(t, v.Index(1))
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		fill(t, key)
		fill(t, value)
		v.SetMapIndex(key, value)
	case reflect.Struct:
		for i := range v.NumField() {
			fill(t, v.Field(i))
		}
	case reflect.Interface:
		v.Set(reflect.ValueOf(map[string]any{"a": "b"}))
	default:
		t.Fatalf("%s: a kind that clone does not know", v.Type())
	}
}

// A copy is what JSON makes of it, for every field that there is in an OCI spec.
func TestCloneIsWhatJSONCarries(t *testing.T) {
	var full specs.Spec
	fill(t, reflect.ValueOf(&full).Elem())
	empty := specs.Spec{
		Process: &specs.Process{Args: []string{}, Env: []string{}, User: specs.User{AdditionalGids: []uint32{}}}, Mounts: []specs.Mount{{Options: []string{}}},
		Linux: &specs.Linux{Sysctl: map[string]string{}, Namespaces: []specs.LinuxNamespace{}, Resources: &specs.LinuxResources{}}, Annotations: map[string]string{},
	}
	for name, s := range map[string]*specs.Spec{"full": &full, "empty": &empty, "zero": {}} {
		text, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		var want specs.Spec
		if err := json.Unmarshal(text, &want); err != nil {
			t.Fatal(err)
		}
		got, err := clone(s)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(&want, got); diff != "" {
			t.Errorf("%s: (-JSON +clone)\n%s", name, diff)
		}
	}
	got, err := clone(&full)
	if err != nil {
		t.Fatal(err)
	}
	got.Process.Args[0], got.Linux.Resources.Pids.Limit = "other", new(int64)
	if full.Process.Args[0] == "other" || *full.Linux.Resources.Pids.Limit == 0 {
		t.Error("a copy shares something with what it was made of")
	}
}
