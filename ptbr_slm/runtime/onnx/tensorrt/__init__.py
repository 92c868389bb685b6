"""The TensorRT provider: sessions, shapes that engines are built for, where they are kept."""
