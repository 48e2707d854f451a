from django.db import migrations, models
from django.utils import timezone


class Migration(migrations.Migration):
    initial = True

    dependencies = ()

    # Channels 1.1 made the same table, with an app label that isn't an identifier. If its migration
    # was applied, this one counts as applied. Migrations that depend on it depend on this one.
    replaces = [("channels.delay", "0001_initial")]

    operations = [
        migrations.CreateModel(
            name="DelayedMessage",
            fields=[
                (
                    "id",
                    models.AutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                (
                    "due_date",
                    models.DateTimeField(
                        db_index=True, default=timezone.now, verbose_name="due date"
                    ),
                ),
                ("channel_name", models.CharField(max_length=512, verbose_name="channel name")),
                ("content", models.TextField(verbose_name="content")),
            ],
            options={
                "db_table": "channels.delay_delayedmessage",
                "verbose_name": "delayed message",
                "verbose_name_plural": "delayed messages",
            },
        ),
    ]
