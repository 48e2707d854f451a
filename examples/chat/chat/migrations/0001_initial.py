from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True

    dependencies = []

    operations = [
        migrations.CreateModel(
            name="Room",
            fields=[
                (
                    "id",
                    models.AutoField(
                        primary_key=True, serialize=False, auto_created=True, verbose_name="ID"
                    ),
                ),
                ("name", models.CharField(max_length=50, unique=True)),
                ("revision", models.PositiveIntegerField(default=0)),
            ],
        ),
        migrations.CreateModel(
            name="Line",
            fields=[
                (
                    "id",
                    models.AutoField(
                        primary_key=True, serialize=False, auto_created=True, verbose_name="ID"
                    ),
                ),
                ("person", models.CharField(max_length=32)),
                ("nickname", models.CharField(max_length=30)),
                ("text", models.CharField(max_length=1000)),
                ("token", models.CharField(max_length=36, unique=True)),
                ("at", models.DateTimeField(auto_now_add=True)),
                (
                    "room",
                    models.ForeignKey("chat.Room", on_delete=models.CASCADE, related_name="lines"),
                ),
            ],
        ),
        migrations.CreateModel(
            name="Window",
            fields=[
                (
                    "id",
                    models.AutoField(
                        primary_key=True, serialize=False, auto_created=True, verbose_name="ID"
                    ),
                ),
                ("reply_channel", models.CharField(max_length=100, unique=True)),
                ("person", models.CharField(db_index=True, max_length=32)),
                ("nickname", models.CharField(max_length=30)),
                (
                    "room",
                    models.ForeignKey(
                        "chat.Room", on_delete=models.CASCADE, related_name="windows"
                    ),
                ),
            ],
        ),
    ]
